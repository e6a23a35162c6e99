"""Drift, column by column: the test that the scale calls for, whatever the column holds."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from bisect import bisect

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from scipy.signal import lfilter

from ratchet.contract import Column
from ratchet.monitoring.autocorrelation import inflation, inflation_of_shares
from ratchet.monitoring.data_drift import _chi_squared, _counted, data_drift, difference
from ratchet.monitoring.projection import image
from ratchet.monitoring.validity import validity

LETTERS = ["a", "b", "c", "d", "e"]
COLUMNS = {
    "continuous": Column(name="x", scale="continuous", range=(-99, 99)),
    "missing": Column(name="x", scale="continuous", range=(-99, 99), missing=0.2),
    "discrete": Column(name="x", scale="discrete", range=(0, 20)),
    "many values": Column(name="x", scale="discrete", range=(0, 9999)),
    "ordinal": Column(name="x", scale="ordinal", values=LETTERS),
    "nominal": Column(name="x", scale="nominal", values=LETTERS),
    "binary": Column(name="x", scale="binary"),
    "text": Column(name="x", role="id", scale="text"),
    "image": Column(name="x", role="id", scale="image"),
}


def png(pixels):
    with io.BytesIO() as file:
        Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode()


def values(kind, rng, n, moved=0.0):
    """n values of a kind; moved by so much of what they vary by."""
    z = rng.normal(moved, 1.0, n)
    if kind == "missing":
        return pd.Series(np.where(rng.random(n) < 0.05 + 0.1 * moved, np.nan, z))
    if kind == "discrete":
        return pd.Series(np.clip(np.round(3 + 1.5 * z), 0, 20))
    if kind == "many values":
        return pd.Series(np.round(3000 + 700 * z))
    if kind in ("ordinal", "nominal"):
        return pd.Series(np.array(LETTERS)[np.digitize(z, [-1, -0.3, 0.3, 1])])
    if kind == "binary":
        return pd.Series((z > 0.5).astype(float))
    if kind == "text":
        words = np.array(["late", "paid", "default", "again", "never"])
        return pd.Series([" ".join(words[np.digitize(rng.normal(moved, 1, 4), [-1, -0.3, 0.3, 1])]) for _ in range(n)])
    if kind == "image":
        return pd.Series([png(np.clip(rng.normal(120 + 25 * level, 20, (6, 6, 3)), 0, 255)) for level in z])
    return pd.Series(z)


@pytest.mark.parametrize("kind", COLUMNS)
def test_each_scale_sees_a_shift_and_rings_as_seldom_as_its_level(kind):
    rng = np.random.default_rng(5)
    size = 400 if kind in ("text", "image") else 1000
    moved = difference(COLUMNS[kind], values(kind, rng, size), values(kind, rng, size, 0.5))
    assert moved.p < 1e-6
    assert 0.02 < moved.effect <= 1
    quiet = [difference(COLUMNS[kind], values(kind, rng, size), values(kind, rng, size)).p for _ in range(12 if size == 400 else 60)]
    assert sum(p < 0.05 for p in quiet) <= (3 if size == 400 else 8)


@pytest.mark.parametrize("kind", ["continuous", "discrete", "ordinal", "binary"])
def test_autocorrelated_rows_do_not_ring(kind):
    rng = np.random.default_rng(6)

    def stream(n):
        z = lfilter([np.sqrt(1 - 0.64)], [1, -0.8], rng.normal(size=n + 100))[100:]
        if kind == "continuous":
            return pd.Series(z)
        if kind == "discrete":
            return pd.Series(np.clip(np.round(3 + 1.5 * z), 0, 20))
        return pd.Series((z > 0.5).astype(float)) if kind == "binary" else pd.Series(np.array(LETTERS)[np.digitize(z, [-1, -0.3, 0.3, 1])])

    # Taken for independent, about every second of these would be below 0.001.
    told = [difference(COLUMNS[kind], stream(4000), stream(2000)) for _ in range(60)]
    assert sum(d.p < 0.001 for d in told) <= 1
    assert np.median([d.inflation for d in told]) > 4


@settings(max_examples=100, deadline=None)
@given(
    codes=st.lists(st.integers(0, 6), max_size=400),
    kinds=st.integers(1, 6),
    run=st.integers(1, 12),
)
def test_flags_that_are_not_made_tell_what_made_ones_do(codes, kinds, run):
    codes = np.repeat(np.array(codes, dtype=int), run)
    assert inflation_of_shares(codes, kinds) == inflation(codes[:, None] == range(kinds))
    assert inflation_of_shares(codes, kinds, higher=True) == inflation(codes[:, None] > range(kinds))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["continuous", "missing", "discrete", "ordinal", "nominal", "binary"]),
    old=st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=60),
    new=st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=60),
)
def test_whatever_two_samples_hold_there_is_a_p_value(kind, old, new):
    def made(sample):
        told = [
            None
            if value is None
            else LETTERS[value]
            if kind in ("ordinal", "nominal")
            else float(value > 2)
            if kind == "binary"
            else float(value)
            for value in sample
        ]
        return pd.Series(told, dtype=object if kind in ("ordinal", "nominal") else float)

    found = difference(COLUMNS[kind], made(old), made(new))
    assert 0.0 <= found.p <= 1.0
    same = difference(COLUMNS[kind], made(old), made(old))
    assert same.p > 0.05


def test_a_value_that_hardly_ever_comes_does_not_ring_when_it_comes():
    """One rare category among common ones: the chi-squared statistic takes three of them in a small window for a change of everything."""
    rng = np.random.default_rng(9)
    chance = np.array([0.0005, 0.5, 0.4995])
    told = []
    for _ in range(3000):
        counts = np.column_stack([rng.multinomial(5000, chance), rng.multinomial(300, chance)]).astype(float)
        told.append(_chi_squared(counts)[0])
    assert min(told) > 1e-5
    assert np.mean(np.array(told) < 0.05) < 0.06
    # New ones that are too many for chance are seen, however few rows there are.
    assert _chi_squared(np.array([[0, 12], [2500, 144], [2500, 144]], dtype=float))[0] < 1e-12
    assert _chi_squared(np.array([[3, 0], [2500, 240], [2500, 60]], dtype=float))[0] < 1e-20
    # A column that is replaced altogether, in rows that are worth few.
    assert _chi_squared(np.array([[2500, 0], [2500, 0], [0, 150]], dtype=float))[0] < 1e-20
    assert _chi_squared(np.array([[0, 3], [0, 3]], dtype=float))[0] == 1.0


def test_categories_that_are_all_rare_are_told_apart():
    """A window in which every one of 120 categories is new, in groups that only their sums make; and one in which none is."""
    rng = np.random.default_rng(4)
    old = pd.Series(rng.integers(0, 120, 5000).astype(str))
    assert difference(COLUMNS["nominal"], old, pd.Series(rng.integers(120, 240, 300).astype(str))).p < 1e-12
    for names in (120, 3000):
        same = [
            difference(COLUMNS["nominal"], *(pd.Series(rng.integers(0, names, n).astype(str)) for n in (5000, 300))).p for _ in range(40)
        ]
        assert np.mean(np.array(same) < 0.05) < 0.2
        assert min(same) > 1e-4


def test_a_column_that_is_nearly_always_empty_is_no_other_one_for_a_single_value():
    nothing, one = pd.Series(np.full(5000, np.nan)), pd.Series([1.0, *np.full(1999, np.nan)])
    assert difference(COLUMNS["continuous"], nothing, one).p > 0.01
    assert difference(COLUMNS["continuous"], one, nothing).p > 0.01
    assert difference(COLUMNS["continuous"], nothing, pd.Series(np.arange(2000.0))).p < 1e-12
    assert difference(COLUMNS["continuous"], nothing, nothing).p == 1.0


def test_a_column_that_is_gone_all_missing_or_no_number_is_told(problem, contract, credit):
    source = credit.open_source(None, 3)
    before, now = source.traffic(3000, drifted=False), source.traffic(1000, drifted=False)
    for window, verdict in (
        (now.drop(columns="income"), "fail"),
        (now.assign(income=None), "fail"),
        (now.assign(income="n/a"), "fail"),
        # A column that nobody knows leaves the others as they are; `validity` tells of it.
        (now.assign(something="new"), "pass"),
        (now.head(10), "undecided"),
        (now.head(0), "undecided"),
    ):
        found = {check.name: check for check in data_drift(problem, contract, before, window)}
        assert found["data_drift:income"].verdict == verdict
        assert found["data_drift:income"].reason


def test_gaps_ring_as_seldom_as_their_level_and_above_it_soon(problem, contract, credit):
    rows = credit.open_source(None, 3).traffic(2000, drifted=False)
    rng = np.random.default_rng(0)
    may_miss = next(column for column in contract.features if column.missing > 0)

    def verdict(share: float) -> str:
        gone = rows[may_miss.name].ffill().bfill().mask(rng.random(len(rows)) < share)
        return validity(problem, contract, rows, rows.assign(**{may_miss.name: gone})).verdict

    # As often as is allowed at all; the level is one in millions.
    assert {verdict(may_miss.missing) for _ in range(200)} == {"pass"}
    assert verdict(2 * may_miss.missing + 0.05) == "fail"
    complete = next(column for column in contract.features if column.missing == 0)
    for gaps in (rows.index == 5, rows.index < 3, rows.index % 100 < 10):
        for size in (problem.watch.min_window, len(rows)):
            gone = rows.assign(**{complete.name: rows[complete.name].mask(gaps)}).head(size)
            assert validity(problem, contract, rows, gone).verdict == "fail"
    # An outage now and then: a fifth of the rows, in runs of a hundred.
    in_runs = rows.assign(**{may_miss.name: rows[may_miss.name].mask(rows.index % 500 < 100)})
    assert validity(problem, contract, rows, in_runs).verdict == "fail"


def test_directions_of_few_texts_are_told_of_others():
    """Told of those that they were learnt on, all forty of these comparisons have a p-value below 1e-20."""
    rng = np.random.default_rng(4)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(400)])

    def texts(n):
        return pd.Series([" ".join(rng.choice(words, 5)) for _ in range(n)])

    found = [difference(COLUMNS["text"], texts(300), texts(2000)).p for _ in range(40)]
    assert min(found) > 1e-3
    assert sum(p < 0.05 for p in found) <= 6


def test_a_new_category_is_a_shift(problem):
    rng = np.random.default_rng(8)
    old, new = values("nominal", rng, 2000), values("nominal", rng, 2000)
    assert difference(COLUMNS["nominal"], old, new.mask(rng.random(2000) < 0.05, "z")).p < 1e-6


def test_text_that_is_no_image_or_says_it_is_huge_is_missing():
    with io.BytesIO() as file:
        Image.new("1", (6000, 4000)).save(file, format="PNG")
        huge = base64.b64encode(file.getvalue()).decode()
    header = bytearray(base64.b64decode(png(np.zeros((4, 4, 3)))))
    # As wide and as high as Pillow refuses to open.
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    bomb = base64.b64encode(bytes(header)).decode()
    cut = png(np.zeros((40, 40, 3)))[:60]
    unknown = base64.b64encode(
        b"DDS |\x00\x00\x00\x07\x10\x00\x00"
        + struct.pack("<4I", 10, 10, 0, 0)
        + bytes(48)
        + struct.pack("<2I", 32, 4)
        + b"AAAA"
        + bytes(40)
    ).decode()
    for value in ("\xe9", "", "no image", unknown, huge, bomb, cut, base64.b64encode(b"GIF89a").decode()):
        assert np.isnan(image(pd.Series([value]))["brightness"]).all(), value[:20]
    assert image(pd.Series([png(np.full((4, 4, 3), 7))]))["brightness"][0] == 7


@pytest.mark.parametrize("level", [2e-8, 1.6e-5, 1e-3])
@pytest.mark.parametrize(("rows", "share"), [(300, 0.02), (500, 0.01), (300, 0.2), (2000, 0.004), (2000, 0.05), (20_000, 0.001)])
def test_counts_ring_as_seldom_as_their_level_far_out_in_the_tail(rows, share, level):
    """The true level of two binomials, all outcomes counted: where a year of checks looks, the chi-squared limit alone is a hundred times off."""
    reference = 5000
    rang = 0.0
    olds = np.unique(np.linspace(stats.binom.ppf(1e-9, reference, share), stats.binom.isf(1e-9, reference, share), 25).astype(int))
    weights = stats.binom.pmf(olds, reference, share)
    for old, weight in zip(olds, weights / weights.sum(), strict=True):
        middle = round(rows * old / reference)
        for outward, beyond in ((range(middle + 1, rows + 1), stats.binom.sf), (range(middle, -1, -1), stats.binom.cdf)):
            # The further out, the smaller the p-value.
            at = bisect(
                outward, -level, key=lambda new, old=old: -_chi_squared(np.array([[reference - old, rows - new], [old, new]], float))[0]
            )
            if at < len(outward):
                rang += weight * beyond(outward[at] - (beyond is stats.binom.sf), rows, share)
    assert rang <= 1.25 * level


@pytest.mark.parametrize(("rows", "share"), [(300, 0.01), (300, 0.03), (1000, 0.01)])
def test_ranks_of_a_column_that_is_nearly_always_one_value_do_not_ring_sooner_than_its_counts(rows, share):
    """So few other values are far from normal: what they alone would bring about at 2e-8 rang 239 times as often (300 rows, 1%)."""
    old = (np.arange(5000) < 5000 * share).astype(int)
    for count in range(rows):
        new = (np.arange(rows) < count).astype(int)
        found = _counted(old, new, ["0", "1"], ["0", "1"], (1.0, 1.0))
        assert found == _counted(old, new, ["0", "1"], [], (1.0, 1.0))
        if found.p < 1e-9:
            break
    # Where there are enough, their order is asked as well: many values that move together, each by little.
    old, new = (
        np.floor(np.random.default_rng(0).normal(middle, 2.0, n)).astype(int).clip(0, 19) for n, middle in ((5000, 10), (2000, 10.3))
    )
    names = [str(value) for value in range(20)]
    assert _counted(old, new, names, names, (1.0, 1.0)).measure.startswith("probability")


def test_a_category_that_was_rare_and_one_that_moved_among_many_are_seen():
    """Thin categories are asked one by one and in groups: neither a single one nor many that move together hide."""
    few = np.tile([200.0, 40.0], (25, 1))
    one, many = few.copy(), few.copy()
    one[3, 1] = 100.0
    many[:, 1] = np.where(np.arange(25) < 12, 60.0, 21.5)
    assert _chi_squared(few)[0] > 0.9
    assert _chi_squared(one)[0] < 1e-6
    assert _chi_squared(many)[0] < 1e-6
