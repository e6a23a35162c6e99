"""How does a service stand without a stack around it? Models of the first batch, released, one of them routed to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.train import Native, train
from ratchet.data.batch import conform
from ratchet.data.splits import split
from ratchet.decision import decide
from ratchet.errors import BatchError
from ratchet.interval import fit as fit_interval
from ratchet.monitoring.decay import at_release
from ratchet.monitoring.estimate import relied_on
from ratchet.monitoring.excess import MOST_ROWS
from ratchet.problem import Folder
from ratchet.release import Release, write
from ratchet.request import records
from ratchet.scoring import Scorer
from ratchet.settings import Settings, parameters
from ratchet.store import Store

PROBES = 32
REFERENCE_ROWS = 2000


def stand(folder: Folder, settings: Settings, family: str, rows: int, seed: int) -> dict[str, tuple[Release, Native]]:
    """Train every family on a first batch of so many rows, release them as 1, 2, 3 and route to one.

    By family: the release, and the model before its export.

    BatchError where params.yaml does not name that family.
    """
    contract, problem = folder.contract, folder.problem
    params = parameters()["train"]
    if family not in params["families"]:
        raise BatchError(f"params.yaml: train.families: {family!r} is not among {', '.join(params['families'])}.")
    known = first_rows(folder, rows, seed)
    sides = split(known[contract.entity])
    encoder, candidates = train(known, sides, contract, problem.threshold, params, seed)
    test, select, held = (known[np.isin(sides, parts)] for parts in (("test",), ("select",), ("select", "test")))
    requests = records(test.head(PROBES), contract)
    names = [column.name for column in contract.features]
    made = {}
    for version, candidate in enumerate(candidates, start=1):
        probability = Scorer(candidate.graph, encoder).probability
        probe = [{"request": r, "probability": float(p)} for r, p in zip(requests, probability(test.head(PROBES)), strict=True)]
        release = write(
            settings.releases,
            version=str(version),
            graph=candidate.graph,
            encoder=encoder,
            contract=contract,
            threshold=problem.threshold,
            probe=probe,
            reference=test[[*names, *(column.name for column in contract.watched)]].head(REFERENCE_ROWS),
            facts={
                "family": candidate.family,
                "relies_on": relied_on(probability, test, names),
                "released": at_release(problem, probability(held), held[contract.target].to_numpy(float)),
            },
            interval=fit_interval(probability(select), select[contract.target].to_numpy(float)),
            held=held[names].assign(probability=probability(held), truth=held[contract.target].to_numpy(float)),
            newest=known[names].tail(MOST_ROWS),
        )
        assert candidate.native is not None
        made[candidate.family] = (release, candidate.native)
    store = Store(settings.store_url, problem.name)
    version = made[family][0].version
    decision = decide("promote", f"version {version}", ["it stands without a stack"], {"seed": seed, "rows": rows, "family": family})
    store.record(decision)
    store.set_route(version, decision.id, verified=True)
    store.close()
    return made


def first_rows(folder: Folder, rows: int, seed: int) -> pd.DataFrame:
    """The labelled rows of a first batch of so many."""
    contract = folder.contract
    frame = conform(folder.open_source(None, seed).first_batch(rows), contract, "the first batch")
    return frame[np.asarray(frame[contract.target].notna())].reset_index(drop=True)
