"""A release is whole, immutable, and proves what it is."""

from __future__ import annotations

import pytest

from models.calibration import append
from models.logistic import fit
from ratchet.data.encoding import fit as fit_encoder
from ratchet.errors import ReleaseError
from ratchet.release import read, write
from ratchet.request import records
from ratchet.scoring import Scorer


@pytest.fixture(scope="module")
def parts(credit):
    rows = credit.open_source(None, 2).traffic(800, drifted=False)
    encoder = fit_encoder(rows, credit.contract)
    views = encoder.encode(rows)
    truth = rows["defaulted"].to_numpy()
    graph = append(fit(views, truth, views, truth, {"C": 1.0, "max_iter": 200}, 0).export(), 1.0, 0.0).SerializeToString()
    answers = Scorer(graph, encoder).probability(rows.head(5))
    probe = [{"request": r, "probability": float(p)} for r, p in zip(records(rows.head(5), credit.contract), answers, strict=True)]
    return {
        "graph": graph,
        "encoder": encoder,
        "contract": credit.contract,
        "threshold": 0.2,
        "probe": probe,
        "reference": rows.head(50)[[c.name for c in credit.contract.features]],
        "facts": {"family": "logistic"},
    }


def test_a_release_reads_as_it_was_written(tmp_path, parts):
    made = write(tmp_path, version="1", **parts)
    there = read(tmp_path / "credit" / "1")
    assert there.contract == parts["contract"]
    assert there.encoder == parts["encoder"]
    assert there.answer_probe() == 0.0
    assert len(there.reference) == 50
    assert made == there
    assert [path.name for path in (tmp_path / "credit").iterdir()] == ["1"]


def test_a_version_is_released_once(tmp_path, parts):
    write(tmp_path, version="1", **parts)
    write(tmp_path, version="1", **parts)
    with pytest.raises(ReleaseError, match="another graph"):
        write(tmp_path, version="1", **(parts | {"graph": parts["graph"] + b"x"}))


@pytest.mark.parametrize("name", ["model.onnx", "encoder.json", "contract.yaml", "probe.json", "reference.parquet"])
def test_a_changed_or_missing_file_is_noticed(tmp_path, parts, name):
    folder = write(tmp_path, version="1", **parts).path
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(ReleaseError, match="changed after the release"):
        read(folder)
    (folder / name).unlink()
    with pytest.raises(ReleaseError, match=name):
        read(folder)


def test_a_probe_that_is_answered_otherwise_is_noticed(tmp_path, parts):
    wrong = [{**item, "probability": item["probability"] + 1e-4} for item in parts["probe"]]
    with pytest.raises(ReleaseError, match=r"probe \d is answered 1.00e-04 off"):
        write(tmp_path, version="1", **(parts | {"probe": wrong})).answer_probe()


def test_a_version_that_is_not_released_is_told_with_those_that_are(tmp_path, parts):
    name = parts["contract"].name
    with pytest.raises(ReleaseError, match=f"Version 9 of {name} is not released; there is none yet."):
        read(tmp_path / name / "9")
    write(tmp_path, version="1", **parts)
    write(tmp_path, version="2", **parts)
    with pytest.raises(ReleaseError, match=f"Version 9 of {name} is not released; there are 1, 2."):
        read(tmp_path / name / "9")


def test_a_folder_that_is_no_release(tmp_path):
    with pytest.raises(ReleaseError, match="is not a release"):
        read(tmp_path)
