"""A whole file, row for row: the service's answers, nothing dropped, and on where it was cut short."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import pytest

from flows import score
from flows.score import score_file
from ratchet.data.rows import defects
from ratchet.errors import BatchError
from ratchet.release import read
from ratchet.request import records, request_type


@pytest.fixture
def release(standing):
    return read(standing / "releases" / "credit" / "2")


@pytest.fixture(scope="module")
def rows(credit):
    return credit.open_source(None, 5).traffic(1000, drifted=False)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_is_answered_as_the_service_would(release, rows, contract, tmp_path, kind):
    source, target = tmp_path / f"rows.{kind}", tmp_path / f"out.{kind}"
    (rows.to_parquet if kind == "parquet" else rows.to_csv)(source, index=False)
    seen = []
    made = score_file(release, source, target, lambda *told: seen.append(told), part_rows=300)
    out = pd.read_parquet(target) if kind == "parquet" else pd.read_csv(target, float_precision="round_trip")
    assert (made.rows, made.refused, made.resumed) == (1000, 0, 0)
    assert [done for done, _ in seen] == [300, 600, 900, 1000]
    assert out["application_id"].tolist() == rows["application_id"].tolist()
    asked = records(rows, contract)
    alone = release.scorer.probability({c.name: [r[c.name] for r in asked] for c in contract.requested})
    assert (out["probability"].to_numpy() == alone).all()
    assert (out["label"] == (alone >= release.threshold)).all()
    assert (out["low"] <= out["probability"]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


def test_rows_that_break_the_contract_are_told_and_none_is_dropped(release, rows, contract, tmp_path):
    bad = rows.copy()
    bad.loc[3, "amount"] = -5.0
    bad.loc[4, "employment"] = "astronaut"
    bad.loc[5, "term_months"] = 12.5
    bad.loc[6, "amount"] = np.nan
    bad.loc[7, ["amount", "income"]] = [74000.0, 10.0]
    bad.to_parquet(tmp_path / "rows.parquet", index=False)
    made = score_file(release, tmp_path / "rows.parquet", tmp_path / "out.csv")
    out = pd.read_csv(tmp_path / "out.csv")
    assert (made.rows, made.refused, len(out)) == (1000, 5, 1000)
    assert out["probability"].isna().sum() == out["label"].isna().sum() == 5
    for row, words in {3: "'amount'", 4: "'employment'", 5: "'term_months'", 6: "'amount' is missing", 7: "affordable"}.items():
        assert words in out["refused"][row]


def test_a_file_is_judged_as_records_are(rows, contract):
    """Row by row, the file's judge and the request's agree."""

    def plain(value):
        number = float(value) if isinstance(value, float) else value
        return int(number) if isinstance(number, float) and number.is_integer() else number

    rng = np.random.default_rng(0)
    spoiled = rows.astype(object)
    for column in contract.requested:
        for change in (None, -1.0, 0.5, 1e9, "odd", 1):
            spoiled.loc[rng.integers(0, len(rows), 3), column.name] = change
    kind = request_type(contract)
    numeric = [c.name for c in contract.requested if c.values is None]
    spoiled[numeric] = spoiled[numeric].apply(pd.to_numeric, errors="coerce")
    told = defects(spoiled, contract)
    affordable = spoiled["amount"] > 10 * spoiled["income"] + 5000
    for row in range(len(spoiled)):
        record = {name: None if pd.isna(value) else value for name, value in spoiled.loc[row, [c.name for c in contract.requested]].items()}
        try:
            # As JSON has it: 7.0 may stand where a whole number is asked for.
            msgspec.convert({k: plain(v) for k, v in record.items()}, kind)
            valid = not affordable[row]
        except msgspec.ValidationError:
            valid = False
        assert (told[row] is None) == valid, (record, told[row])


def test_a_run_that_was_cut_short_goes_on_where_it_was(release, rows, tmp_path, monkeypatch):
    source, target = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    rows.to_parquet(source, index=False)

    def cut(done: int, _: object) -> None:
        if done == 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_file(release, source, target, cut, part_rows=200)
    assert not target.exists()
    asked = []
    monkeypatch.setattr(score, "_answers", lambda *told, real=score._answers: asked.append(1) or real(*told))
    made = score_file(release, source, target, part_rows=200)
    assert (made.rows, made.resumed, len(asked)) == (1000, 600, 2)
    assert len(pd.read_parquet(target)) == 1000
    # Another file under the same name starts anew.
    with pytest.raises(KeyboardInterrupt):
        score_file(release, source, target, cut, part_rows=200)
    rows.head(900).to_parquet(source, index=False)
    assert score_file(release, source, target, part_rows=200).resumed == 0


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.txt", b"a", "must end in .parquet or .csv"),
        ("rows.csv", b"", "cannot be read as a table"),
        ("rows.csv", b"a,b\n1,2\n", "column 'income' is missing"),
        ("rows.parquet", b"no parquet", "cannot be read as a table"),
    ],
)
def test_a_file_that_cannot_be_scored_is_a_sentence(release, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BatchError, match=sentence):
        score_file(release, tmp_path / name, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_column_of_another_kind_and_an_empty_file_are_sentences(release, rows, tmp_path):
    rows.assign(amount="much").to_parquet(tmp_path / "rows.parquet", index=False)
    with pytest.raises(BatchError, match="column 'amount' holds"):
        score_file(release, tmp_path / "rows.parquet", tmp_path / "out.csv")
    rows.head(0).to_parquet(tmp_path / "none.parquet", index=False)
    with pytest.raises(BatchError, match="there are no rows"):
        score_file(release, tmp_path / "none.parquet", tmp_path / "out.csv")
    rows.assign(amount="much").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(BatchError, match="amount"):
        score_file(release, tmp_path / "rows.csv", tmp_path / "out.csv")
    with pytest.raises(BatchError, match="no such file"):
        score_file(release, tmp_path / "nowhere.csv", tmp_path / "out.csv")
