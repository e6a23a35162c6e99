"""Of all slices of one or two columns the one that stands out most is found, as looking at each of them would find it."""

from itertools import chain, combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.contract import Column, Contract
from ratchet.evaluation.pairs import pairs
from ratchet.evaluation.slices import inside_of, view


def test_of_all_pairs_of_values_the_one_that_stands_out_is_found_first_however_easy_its_rows_are():
    rng = np.random.default_rng(0)
    n = 6000
    categories = pd.DataFrame({name: pd.Categorical(rng.choice(list("abcde"), n)) for name in ("one", "two", "three")})
    residual = rng.normal(size=n)
    inside = inside_of(categories, {"one": ("b",), "three": ("d",)})
    residual[inside] += 0.6
    found = pairs(categories, residual, 0.02)
    assert found[0] == {"one": ("b",), "three": ("d",)}
    assert len(found) == 5
    # What was found already is not told again.
    shares = [(inside_of(categories, a) & inside_of(categories, b)).sum() / (inside_of(categories, a) | inside_of(categories, b)).sum()
              for a, b in combinations(found, 2)]  # fmt: skip
    assert max(shares) < 0.5
    assert pairs(categories, -np.abs(residual), 0.02) == []


def test_a_strong_slice_does_not_hide_another_and_ends_are_found_between_wide_bins():
    rng = np.random.default_rng(2)
    rows = pd.DataFrame({f"x{place}": rng.uniform(1_700_000, 1_700_060, 10_000) for place in range(6)})
    columns = [Column(name="row", role="id", scale="nominal"), *(Column(name=name, scale="continuous", range=(0, 1e7)) for name in rows)]
    contract = Contract(name="wide", columns=(*columns, Column(name="y", role="target", scale="binary")))
    categories = view(rows, contract, 20)
    assert all(len(categories[name].cat.categories) == 21 for name in categories)
    places = rows.rank(pct=True)
    one, other = places["x0"].between(0.42, 0.5), places["x3"].between(0.1, 0.5) & places["x4"].between(0.7, 0.9)
    residual = rng.normal(size=10_000) + 2.0 * one.to_numpy() + 0.8 * other.to_numpy()
    found = [inside_of(categories, where) for where in pairs(categories, residual, 0.02)]
    assert len(found) == 5
    shared = [[(inside & truth).sum() / (inside | truth).sum() for inside in found] for truth in (one, other)]
    assert shared[0][0] > 0.6
    assert max(shared[1]) > 0.6


def test_a_value_of_an_ordered_column_is_widened_to_its_neighbours():
    rng = np.random.default_rng(1)
    place = rng.integers(0, 5, 6000)
    categories = pd.DataFrame({"grade": pd.Categorical.from_codes(place, list("12345"), ordered=True)})
    residual = rng.normal(size=6000) + 0.5 * np.isin(place, (1, 2))
    assert pairs(categories, residual, 0.02)[0] == {"grade": ("2", "3")}


def test_rows_that_all_cost_alike_have_no_slice_and_what_all_share_hides_none():
    rng = np.random.default_rng(3)
    categories = pd.DataFrame({"one": pd.Categorical(rng.choice(list("abcd"), 4000)), "same": pd.Categorical(["s"] * 4000)})
    assert pairs(categories, np.full(4000, 0.7), 0.02) == []
    residual = rng.normal(size=4000) + 1.0 + 0.8 * (categories["one"] == "b").to_numpy()
    assert pairs(categories, residual, 0.02)[0] == {"one": ("b",)}


def test_no_rows_and_no_columns_have_no_slice():
    none = pd.DataFrame({"one": pd.Categorical([], list("ab"))})
    assert pairs(none, np.zeros(0), 0.02) == []
    assert pairs(pd.DataFrame(index=range(3)), np.ones(3), 0.02) == []


def test_missing_is_a_value_but_no_neighbour():
    place = np.arange(3000) % 3
    categories = pd.DataFrame({"grade": pd.Categorical.from_codes(place, ["1", "2", "missing"], ordered=True)})
    assert pairs(categories, (place == 2) - 0.1, 0.02)[0] == {"grade": ("missing",)}
    assert pairs(categories, (place >= 1) - 0.1, 0.02)[0] in ({"grade": ("missing",)}, {"grade": ("2",)})


KINDS = st.tuples(st.booleans(), st.integers(1, 5))


@settings(max_examples=40, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=3), st.integers(0, 10_000), st.sampled_from((0.02, 0.2)))
def test_the_first_one_found_is_the_strongest_that_there_is(kinds, seed, support):
    rng = np.random.default_rng(seed)
    n = 120
    categories = pd.DataFrame({
        f"c{place}": pd.Categorical.from_codes(rng.integers(-1, count, n), [str(value) for value in range(count)], ordered=ordered)
        for place, (ordered, count) in enumerate(kinds)
    })  # fmt: skip
    residual = rng.normal(size=n)
    left = residual - max(residual.mean(), 0.0)

    def strength(where):
        inside = inside_of(categories, where)
        return left[inside].sum() / np.sqrt(inside.sum()) if max(support * n, 2) <= inside.sum() < n else -np.inf

    def predicates(place, ordered, count):
        longest = count if ordered else 1
        runs = [tuple(map(str, range(first, first + length))) for length in range(1, longest + 1) for first in range(count - length + 1)]
        return [{f"c{place}": run} for run in runs]

    single = [predicates(place, *kind) for place, kind in enumerate(kinds)]
    every = [*chain.from_iterable(single), *({**a, **b} for one, other in combinations(single, 2) for a, b in product(one, other))]
    best = max(map(strength, every))
    found = pairs(categories, residual, support)
    if best <= 1e-6:
        assert found == []
    else:
        assert strength(found[0]) == pytest.approx(best, rel=1e-4)


def test_ordered_values_beyond_counting_are_joined_with_their_neighbours():
    """Of two such columns every pair of runs is looked at: of 300 values each there are two thousand million."""
    rng = np.random.default_rng(4)
    names = [f"grade {place:03}" for place in range(300)]
    place = rng.integers(0, 300, 8000)
    rows = pd.DataFrame({"one": np.array(names)[place], "two": np.array(names)[rng.integers(0, 300, 8000)]})
    rows.loc[:99, "two"] = None
    columns = (
        Column(name="row", role="id", scale="nominal"),
        *(Column(name=name, scale="ordinal", values=names, missing=0.1) for name in rows),
    )
    categories = view(rows, Contract(name="grades", columns=(*columns, Column(name="y", role="target", scale="binary"))), 20)
    assert [len(categories[name].cat.categories) for name in rows] == [21, 21]
    assert categories["two"].iloc[:100].eq("missing").all()
    assert categories["one"].cat.categories[0].startswith("grade 000 to grade 01")
    sizes = categories["one"].value_counts().drop("missing")
    assert sizes.min() > 200
    (where, *_) = pairs(categories, rng.normal(size=8000) + 1.5 * ((place >= 90) & (place < 120)), 0.02)
    inside = inside_of(categories, where)
    assert place[inside].min() >= 70
    assert place[inside].max() < 140
