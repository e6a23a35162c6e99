"""Does the data get worse? Six dimensions of quality, scored in every window, against the release and along the window."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.contract import Contract
from ratchet.data.quality import flaws
from ratchet.monitoring.excess import level
from ratchet.problem import Problem
from ratchet.registry import registered

ASKED = {
    "accuracy": "Do labels say what audits find?",
    "completeness": "Are all values there that must be?",
    "consistency": "Do rows keep the rules across their columns?",
    "timeliness": "Do labels come within the label delay?",
    "uniqueness": "Does each row come once?",
    "validity": "Is every value one that its column may have?",
}
# Shares of labels that audits contradict, and that are late, from which on they matter: there is no release to compare with.
NOISE, LATE = 0.05, 0.2
# The score is told for so many parts of the window, in their order.
PARTS = 10
UNIT = "share of rows"


@registered("quality", "monitor")
def quality(problem: Problem, contract: Contract, held: pd.DataFrame, window: pd.DataFrame, aged: pd.DataFrame) -> list[Check]:
    """Six checks of n rows in their order, each with its score: the share of rows that are sound.

    `held` are rows held out at release. `aged` are predictions older than the label delay, with `outcome`, what came back, and `gold`,
    what an audit found, NaN where there is none. It fails where more rows are flawed than at release beyond chance (Fisher), or where
    later rows are flawed more often than earlier ones (Mann-Whitney of their places); labels, where they are late or contradicted
    beyond a share that matters.
    """
    least = problem.watch.min_window
    made = []
    if min(len(window), len(held)) < least:
        reason = f"{len(window)} predictions, {len(held)} rows of the release; {least} of each are needed"
        of_rows = ("completeness", "consistency", "uniqueness", "validity")
        made = [undecided(f"quality:{name}", ASKED[name], reason, len(window), limit=level(problem), unit=UNIT) for name in of_rows]
    else:
        before, now = flaws(contract, held), flaws(contract, window)
        # The more rows there are, the more of them are the same by chance.
        size = min(len(held), len(window))
        before["uniqueness"], now["uniqueness"] = (flaws(contract, rows.tail(size))["uniqueness"] for rows in (held, window))
        made = [_of_rows(problem, name, before[name], flawed) for name, flawed in now.items()]
    told = aged["outcome"].notna().to_numpy()
    both = told & aged["gold"].notna().to_numpy()
    wrong = (aged["outcome"] != aged["gold"]).to_numpy()[both]
    late = _of_labels(problem, "timeliness", ~told, LATE, "rows older than the label delay have no label", least)
    if not told.any() and late.verdict == "fail":
        # Where labels never come they are not late.
        late = undecided(
            "quality:timeliness", ASKED["timeliness"], f"none of {len(aged):,} rows older than the label delay has a label", len(aged)
        )
    accuracy = _of_labels(problem, "accuracy", wrong, NOISE, "labels are contradicted by an audit", problem.gate.min_group)
    return sorted([*made, late, accuracy], key=lambda check: check.name)


def scores(flawed: np.ndarray) -> list[float]:
    """The share of sound rows in each of ten parts of n flags, in their order."""
    return [float(1 - part.mean()) for part in np.array_split(flawed, PARTS) if len(part)]


def _of_rows(problem: Problem, name: str, before: np.ndarray, flawed: np.ndarray) -> Check:
    """The larger of two questions, each at half the level: more than at release, and more than earlier in the window."""
    n, limit = len(flawed), level(problem)
    table = [[int(flags.sum()), int((~flags).sum())] for flags in (flawed, before)]
    more = float(stats.fisher_exact(np.array(table), alternative="greater").pvalue)
    places = np.arange(n)
    later = 1.0
    if flawed.any() and not flawed.all():
        later = float(stats.mannwhitneyu(places[flawed], places[~flawed], alternative="greater").pvalue)
    p = min(1.0, 2 * min(more, later))
    verdict: Verdict = "fail" if p < limit else "pass"
    trend = ", rising along the window" if 2 * later < limit else ""
    reason = (
        f"{flawed.mean():.2%} of {n:,} predictions are flawed{trend}, {before.mean():.2%} of the release's {len(before):,} rows are: "
        f"p = {p:.1e}, limit {limit:.1e}"
    )
    return _check(name, verdict, reason, flawed, limit, {"p_value": p, "trend": scores(flawed), "before": float(1 - before.mean())})


def _of_labels(problem: Problem, name: str, flawed: np.ndarray, matters: float, what: str, least: int) -> Check:
    """Whether a share is larger than one that matters, with Wilson's interval."""
    n = len(flawed)
    if n < least:
        return undecided(f"quality:{name}", ASKED[name], f"{n} rows to judge by; {least} are needed", n, limit=1 - matters, unit=UNIT)
    found = stats.binomtest(int(flawed.sum()), n).proportion_ci(1 - 2 * level(problem), method="wilson")
    verdict: Verdict = "fail" if found.low > matters else "pass"
    reason = f"{int(flawed.sum()):,} of {n:,} {what}: {flawed.mean():.1%} [{found.low:.1%}, {found.high:.1%}], {matters:.0%} matters"
    return _check(name, verdict, reason, flawed, 1 - matters, {"trend": scores(flawed)})


def _check(name: str, verdict: Verdict, reason: str, flawed: np.ndarray, limit: float, evidence: dict[str, object]) -> Check:
    n = len(flawed)
    found = stats.binomtest(int((~flawed).sum()), n).proportion_ci(0.95, method="wilson")
    return Check(
        name=f"quality:{name}",
        question=ASKED[name],
        verdict=verdict,
        reason=reason,
        value=float(1 - flawed.mean()),
        low=float(found.low),
        high=float(found.high),
        limit=limit,
        n=n,
        unit=UNIT,
        evidence=evidence,
    )
