"""How long do the same models take without any stack around them? Training and scoring in one script."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from models.train import train
from ratchet.data.batch import conform
from ratchet.data.splits import split
from ratchet.evaluation.performance import scores
from ratchet.problem import Demonstration, Folder
from ratchet.scoring import Scorer
from ratchet.settings import parameters


def bare_loop(folder: Folder, sizes: Demonstration, seed: int) -> float:
    """Draw, train, pick, score the traffic, train again on everything, score what comes after; seconds."""
    params = parameters()
    contract, problem = folder.contract, folder.problem
    begun = time.perf_counter()
    source = folder.open_source(None, seed)
    first = conform(source.first_batch(sizes.first), contract, "first")
    stable, moved = source.traffic(sizes.stable, drifted=False), source.traffic(sizes.drifted + sizes.after, drifted=True)
    known = pd.DataFrame()
    for rows, asked in ((first[first[contract.target].notna()], (stable, moved)), (pd.concat([stable, moved]), (moved,))):
        known = pd.concat([known, rows], ignore_index=True)
        sides = split(known[contract.entity])
        encoder, candidates = train(known, sides, contract, problem.threshold, params["train"], params["seed"])
        select = known[sides == "select"]
        truth = select[contract.target].to_numpy(float)
        scorers = [Scorer(candidate.graph, encoder) for candidate in candidates]
        losses = [scores(problem, scorer.probability(select), truth)[params["select_by"]] for scorer in scorers]
        best = scorers[int(np.argmin(losses))]
        for frame in asked:
            best.probability(frame)
    return time.perf_counter() - begun
