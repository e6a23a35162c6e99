"""Do the model's own decisions come back as labels: for whom labels come, what they say, and whom it favours from one generation to the next?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.contract import Contract
from ratchet.evaluation.slices import view
from ratchet.monitoring.excess import could_tell, fisher, level
from ratchet.problem import Problem
from ratchet.registry import registered

EXPOSED = "Do labels come as often whichever way the model decided?"
LEANS = "Do labels follow the model's decision where an audit found otherwise?"
WHERE = "Is there a slice whose labels audits contradict more often than others?"
APART = "Do generations favour groups more and more unequally?"
# A gap between the decisions' shares of labelled rows from which on it matters.
GAP = 0.1
# A slice with fewer audited rows is not looked at.
FEWEST = 10
# So many generations tell a trend.
GENERATIONS = 3


@dataclass(frozen=True)
class Ratio:
    """The lowest ratio of two groups' rates of the favourable decision, with its 95% interval, of n rows."""

    value: float
    low: float
    high: float
    n: int


@registered("feedback", "monitor")
def feedback(problem: Problem, contract: Contract, aged: pd.DataFrame) -> list[Check]:
    """Three checks of n predictions that are older than the label delay.

    `aged` has the requested columns, `label`, the model's decision (0 or 1), `outcome`, what came back, and `gold`, what an audit found,
    NaN where there is none. What is decided on labels that the decisions themselves brought about repeats itself (Ensign et al., 2018).
    """
    both = aged[aged["outcome"].notna() & aged["gold"].notna()]
    if len(both) < problem.gate.min_group:
        reason = (
            f"{len(both)} of {len(aged):,} rows older than the label delay have a label and an audit; {problem.gate.min_group} are needed"
        )
        told = {"limit": level(problem), "unit": "p-value"}
        unknown = {"feedback:labels": LEANS, "feedback:slice": WHERE}
        by_audit = [undecided(name, question, reason, len(aged), **told) for name, question in unknown.items()]
    else:
        by_audit = [_leaning(problem, both, len(aged)), _sliced(problem, contract, both, len(aged))]
    return [_exposure(problem, aged["label"].to_numpy(float), aged["outcome"].notna().to_numpy()), *by_audit]


def _exposure(problem: Problem, decided: np.ndarray, labelled: np.ndarray) -> Check:
    """The gap between the shares of labelled rows among those decided one way and the other (Newcombe's interval, 1998).

    Advisory: who is refused a loan brings no outcome, and that is no fault. But labels of one side alone do not tell of the other.
    """
    n, unit = len(decided), "share of rows"
    parts = [labelled[decided == value] for value in (0, 1)]
    least, fewest = problem.gate.min_group, min(map(len, parts))
    if n < problem.watch.min_window or fewest < least or not labelled.any():
        reason = f"{n:,} predictions older than the label delay, {int(labelled.sum()):,} labelled, {fewest:,} of the rarer decision; "
        reason += f"{problem.watch.min_window} and {least} of each decision are needed"
        return undecided("feedback:exposure", EXPOSED, reason, n, limit=GAP, unit=unit, blocking=False)
    gap, low, high = _gap(parts[0], parts[1], 1 - 2 * level(problem))
    _, likely_low, likely_high = _gap(parts[0], parts[1], 0.95)
    open_to_it = likely_low < -GAP or likely_high > GAP
    verdict: Verdict = "fail" if low > GAP or high < -GAP else "undecided" if open_to_it else "pass"
    reason = (
        f"{parts[0].mean():.1%} of the {len(parts[0]):,} rows decided {problem.outcome.negative!r} are labelled, {parts[1].mean():.1%} of the "
        f"{len(parts[1]):,} decided {problem.outcome.positive!r}: a gap of {gap:+.1%} [{low:+.1%}, {high:+.1%}], {GAP:.0%} matters"
    )
    return Check("feedback:exposure", EXPOSED, verdict, reason, gap, low, high, GAP, n, unit, blocking=False)


def _gap(one: np.ndarray, other: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """By how much more often one array of flags is set than the other, with its interval."""
    shares = [float(flags.mean()) for flags in (one, other)]
    ends = [stats.binomtest(int(flags.sum()), len(flags)).proportion_ci(confidence, method="wilson") for flags in (one, other)]
    gap = shares[0] - shares[1]
    low = gap - float(np.hypot(shares[0] - ends[0].low, ends[1].high - shares[1]))
    return gap, low, gap + float(np.hypot(ends[0].high - shares[0], shares[1] - ends[1].low))


def _leaning(problem: Problem, both: pd.DataFrame, n: int) -> Check:
    """Whether labels of rows that the model decides wrongly are wrong more often than those that it decides rightly (Fisher).

    Labels that are noise are wrong as often either way; such as follow the decision are wrong where it is. It is asked of each class, as
    audits found it, by itself (Bonferroni): a source that misses some of one class is no decision, and the model errs more on one as well.
    """
    contradicted = (both["outcome"] != both["gold"]).to_numpy()
    mistaken = (both["label"] != both["gold"]).to_numpy()
    limit, classes = level(problem), [(both["gold"] == value).to_numpy() for value in (0, 1)]
    tables = [_table(contradicted[each], mistaken[each]) for each in classes]
    p = min(1.0, len(tables) * min(fisher(*table) for table in tables))
    reason = (
        f"of {int(mistaken.sum()):,} audited rows that were decided wrongly, {_share(contradicted[mistaken])} have a label that says what the "
        f"model decided; of {int((~mistaken).sum()):,} decided rightly, {_share(contradicted[~mistaken])} have a wrong one: p = {p:.1e}, "
        f"limit {limit:.1e}"
    )
    if contradicted[mistaken].any() and not any(could_tell(*table, limit / len(tables)) for table in tables):
        return undecided("feedback:labels", LEANS, f"{reason}; so few cannot tell", n, limit=limit, unit="p-value")
    return Check("feedback:labels", LEANS, "fail" if p < limit else "pass", reason, value=p, limit=limit, n=n, unit="p-value")


def _sliced(problem: Problem, contract: Contract, both: pd.DataFrame, n: int) -> Check:
    """The value of one column among whose rows audits contradict labels more often than elsewhere (Fisher, Bonferroni over all)."""
    contradicted, categories = (both["outcome"] != both["gold"]).to_numpy(), view(both, contract)
    inside = {f"{name} = {value}": (categories[name] == value).to_numpy() for name in categories for value in categories[name].unique()}
    asked = {name: flags for name, flags in inside.items() if FEWEST <= flags.sum() <= len(both) - FEWEST}
    found = {name: fisher(*_table(contradicted, flags)) for name, flags in asked.items()}
    limit = level(problem)
    if not found:
        reason = f"{len(both)} rows have an outcome and an audit, but no slice has {FEWEST} of them"
        return undecided("feedback:slice", WHERE, reason, n, limit=limit, unit="p-value")
    worst = min(found, key=lambda name: found[name])
    p = min(1.0, found[worst] * len(found))
    there, elsewhere = contradicted[asked[worst]], contradicted[~asked[worst]]
    verdict: Verdict = "fail" if p < limit else "pass"
    reason = (
        f"where {worst}, audits contradict {_share(there)} of {len(there)} labels, elsewhere {_share(elsewhere)} of "
        f"{len(elsewhere):,}: p = {p:.1e} among {len(found)} slices, limit {limit:.1e}"
    )
    return Check("feedback:slice", WHERE, verdict, reason, value=p, limit=limit, n=n, unit="p-value", evidence={"slice": worst})


def _table(flags: np.ndarray, inside: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many rows inside are flagged and how many are not, then of those outside."""
    told, other = ((int((flags & side).sum()), int((~flags & side).sum())) for side in (inside, ~inside))
    return told, other


def _share(flags: np.ndarray) -> str:
    return f"{flags.mean():.0%}" if len(flags) else "none"


@registered("disparity", "monitor")
def disparity(problem: Problem, ratios: Mapping[str, Sequence[Ratio]]) -> list[Check]:
    """By protected group, the lowest ratio of favourable decisions of each generation that went live, oldest first.

    It fails where each of the newest three generations is more unequal than the one before, and the last is so beyond chance of the fairest
    that there was.
    """
    return [_trend(problem, group, list(told)) for group, told in ratios.items()]


def _trend(problem: Problem, group: str, told: list[Ratio]) -> Check:
    name, unit = f"disparity:{group}", "ratio to the fairest generation's"
    n = told[-1].n if told else 0
    if len(told) < GENERATIONS or n < problem.watch.min_window:
        reason = f"{len(told)} generations, {n} rows behind the last; {GENERATIONS} and {problem.watch.min_window} are needed"
        return undecided(name, APART, reason, n, limit=1.0, unit=unit)
    fairest = max(told, key=lambda ratio: ratio.value)
    falling = all(later.value < earlier.value for earlier, later in pairwise(told[-GENERATIONS:]))
    found = falling and told[-1].high < fairest.low
    reason = f"{group}: the lowest ratio of favourable decisions was {', '.join(f'{ratio.value:.3f}' for ratio in told[-5:])}"
    reason += "; it falls from one generation to the next, beyond chance" if found else "; no fall beyond chance"
    value = told[-1].value / fairest.value if fairest.value else 1.0
    return Check(name, APART, "fail" if found else "pass", reason, value=value, limit=1.0, n=n, unit=unit)
