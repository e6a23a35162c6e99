"""What passes from training to serving? A release: an immutable folder that proves what it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.errors import ReleaseError
from ratchet.interval import Interval
from ratchet.scoring import Scorer

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Release:
    """A verified release: its folder, and what its files say."""

    path: Path
    version: str
    threshold: float
    contract: Contract
    encoder: Encoder
    probe: list[dict[str, Any]]
    facts: dict[str, Any]
    interval: Interval | None = None

    @cached_property
    def reference(self) -> pd.DataFrame:
        """The sample of training rows that live traffic is compared with."""
        return pd.read_parquet(self.path / "reference.parquet")

    @cached_property
    def held(self) -> pd.DataFrame | None:
        """Labelled rows that the model has not learnt from: the features, whose they are, `probability` and `truth`.

        None in releases of before.
        """
        path = self.path / "held.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def newest(self) -> pd.DataFrame | None:
        """Rows of every side that followed one another: the features, and whose they are. None in releases of before."""
        path = self.path / "newest.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def scorer(self) -> Scorer:
        """The graph, ready to answer."""
        return Scorer((self.path / "model.onnx").read_bytes(), self.encoder)

    def answer_probe(self) -> float:
        """The largest difference between the graph's answers to the probe and those recorded with it.

        ReleaseError where one differs by more than 1e-6.
        """
        names = [column.name for column in self.contract.requested]
        columns = {name: [item["request"][name] for item in self.probe] for name in names}
        told = np.array([item["probability"] for item in self.probe])
        gap = np.abs(self.scorer.probability(columns) - told)
        if not gap.max() <= TOLERANCE:
            row = int(gap.argmax())
            raise ReleaseError(f"{self.path}: probe {row + 1} is answered {gap[row]:.2e} off what was recorded.")
        return float(gap.max())


def write(
    releases: Path,
    *,
    version: str,
    graph: bytes,
    encoder: Encoder,
    contract: Contract,
    threshold: float,
    probe: list[dict[str, Any]],
    reference: pd.DataFrame,
    facts: dict[str, Any],
    interval: Interval | None = None,
    held: pd.DataFrame | None = None,
    newest: pd.DataFrame | None = None,
) -> Release:
    """Make the release of a version under `releases/<problem>/<version>`, whole or not at all.

    A release that is there already stays as it is; ReleaseError where its graph is another one.
    """
    folder = releases / contract.name / version
    if folder.exists():
        there = read(folder)
        if (folder / "model.onnx").read_bytes() != graph:
            raise ReleaseError(f"{folder}: there is a release of version {version} already, with another graph.")
        return there
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    (draft / "model.onnx").write_bytes(graph)
    (draft / "encoder.json").write_text(json.dumps(encoder.as_dict()), encoding="utf-8")
    plain = contract.model_dump(mode="json", exclude_defaults=True)
    (draft / "contract.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (draft / "probe.json").write_text(json.dumps(probe), encoding="utf-8")
    reference.to_parquet(draft / "reference.parquet", index=False)
    for name, rows in (("held", held), ("newest", newest)):
        if rows is not None:
            rows.to_parquet(draft / f"{name}.parquet", index=False)
    if interval is not None:
        (draft / "interval.json").write_text(json.dumps(interval.as_dict()), encoding="utf-8")
    hashes = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
    manifest = {"version": version, "threshold": threshold, "facts": facts, "sha256": hashes}
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    draft.chmod(0o755)
    try:
        os.rename(draft, folder)
    except OSError:
        # Another process released the same version first.
        shutil.rmtree(draft)
    return read(folder)


def read(folder: Path) -> Release:
    """Open a release and verify the hash of every file. ReleaseError where one is missing or changed."""
    if not folder.is_dir():
        there = [path.name for path in sorted(folder.parent.glob("*/")) if not path.name.startswith(".")]
        known = f"there are {', '.join(there)}" if there else "there is none yet"
        raise ReleaseError(f"Version {folder.name} of {folder.parent.name} is not released; {known}.")
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{folder}: is not a release: {error}.") from error
    for name, told in manifest["sha256"].items():
        path = folder / name
        if not path.is_file() or _sha256(path) != told:
            raise ReleaseError(f"{path}: is missing or was changed after the release was made. Release the version again.")
    return Release(
        path=folder,
        version=manifest["version"],
        threshold=manifest["threshold"],
        contract=Contract.model_validate(yaml.safe_load((folder / "contract.yaml").read_text(encoding="utf-8"))),
        encoder=Encoder.from_dict(json.loads((folder / "encoder.json").read_text(encoding="utf-8"))),
        probe=json.loads((folder / "probe.json").read_text(encoding="utf-8")),
        facts=manifest["facts"],
        interval=_interval(folder) if "interval.json" in manifest["sha256"] else None,
    )


def _interval(folder: Path) -> Interval:
    return Interval.from_dict(json.loads((folder / "interval.json").read_text(encoding="utf-8")))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
