"""Which errors would every training make, and which are luck?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ratchet.check import Check, answered, undecided
from ratchet.evaluation.loss import bootstrap, defect
from ratchet.problem import Problem
from ratchet.registry import registered

QUESTION = "Do the model's errors come from the data and the design rather than from chance in its training?"


def error_table(rows: pd.Series, decided: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """How often each of n rows is decided wrongly by m models that were trained without it.

    `decided` are labels of shape (n, m). Columns: `row`, `wrong` (0 to m), `kind`: always (the data's or the design's),
    sometimes (luck), never.

    >>> error_table(pd.Series(["a", "b"]), np.array([[1, 1], [0, 1]]), np.array([0, 0]))["kind"].tolist()
    ['always', 'sometimes']
    """
    wrong = (decided != truth[:, None]).sum(axis=1)
    kind = np.select([wrong == decided.shape[1], wrong > 0], ["always", "sometimes"], default="never")
    return pd.DataFrame({"row": rows.to_numpy(), "wrong": wrong, "kind": kind})


def kappa(decided: np.ndarray, truth: np.ndarray) -> float:
    """Error consistency between models (Geirhos et al., 2020): Cohen's kappa of being wrong, mean over pairs of m models.

    1 where all err on the same rows, 0 where they share no more errors than chance brings.
    """
    wrong = (decided != truth[:, None]).astype(float)
    found = []
    for one in range(wrong.shape[1]):
        for other in range(one + 1, wrong.shape[1]):
            a, b = wrong[:, one], wrong[:, other]
            chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
            found.append(1.0 if chance == 1 else (float((a == b).mean()) - chance) / (1 - chance))
    return float(np.mean(found)) if found else 1.0


@registered("error_consistency", "release")
def error_consistency(problem: Problem, rows: pd.Series, probability: np.ndarray, truth: np.ndarray, seed: int = 0) -> Check:
    """The share of an average model's wrong decisions on n rows that are luck: another fold or seed decides rightly.

    `probability` has shape (n, m): the answers of m models, trained with other seeds on other folds, none of which saw
    the row. Advisory: luck is no fault of the candidate, but what it calls fixed may be luck too.
    """
    limit, n = problem.gate.luck, len(truth)
    if n < problem.gate.min_rows or probability.shape[1] < 2:
        lacking = f"{n} rows by {probability.shape[1]} models; {problem.gate.min_rows} rows by 2 are needed"
        return undecided("error_consistency", QUESTION, lacking, n, limit=limit, blocking=False)
    if wrong := defect(probability.reshape(-1)):
        return Check("error_consistency", QUESTION, "fail", wrong, limit=limit, n=n, blocking=False)
    decided = (probability >= problem.threshold).astype(int)
    table = error_table(rows, decided, truth)
    by_luck = np.where(table["kind"] == "sometimes", table["wrong"], 0).astype(float)
    every = table["wrong"].to_numpy(float)
    found = bootstrap(lambda drawn: float(by_luck[drawn].sum() / max(every[drawn].sum(), 1.0)), n, seed)
    counts = {str(kind): int(count) for kind, count in table["kind"].value_counts().items()}
    agreement = kappa(decided, truth)
    reason = (
        f"{found[0]:.0%} [{found[1]:.0%}, {found[2]:.0%}] of the wrong decisions are luck: of {n} rows, "
        f"{counts.get('always', 0)} are always wrong and {counts.get('sometimes', 0)} sometimes, over {decided.shape[1]} trainings; kappa {agreement:.2f}"
    )
    evidence = {"counts": counts, "trainings": decided.shape[1], "kappa": agreement}
    return answered("error_consistency", QUESTION, found, limit, "at_most", reason, n, "share of errors", blocking=False, evidence=evidence)
