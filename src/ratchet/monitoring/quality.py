"""Does the data get worse? Six dimensions of quality, scored in every window, against the release and along the window."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ratchet.check import Check, Verdict, undecided
from ratchet.contract import Contract
from ratchet.data.quality import copies, flaws, with_values
from ratchet.monitoring.autocorrelation import inflation
from ratchet.monitoring.excess import beyond, fisher, level
from ratchet.problem import Problem
from ratchet.registry import registered

ASKED = {
    "accuracy": "Do labels say what audits find?",
    "completeness": "Are all values there that must be?",
    "consistency": "Do rows keep the rules across their columns?",
    "timeliness": "Do labels come within the label delay as often as they did?",
    "uniqueness": "Does each row come once?",
    "validity": "Is every value one that its column may have?",
}
# A share of labels that audits contradict, and by how much more of them are late than before, from which on it matters.
NOISE, LATE = 0.05, 0.2
# Harm is doubted by audits of the newest labels: of so many windows.
LATELY = (1, 2, 4)
# The score is told for so many parts of the window, in their order.
PARTS = 10
UNIT = "share of rows"


@registered("quality", "monitor")
def quality(
    problem: Problem,
    contract: Contract,
    held: pd.DataFrame,
    window: pd.DataFrame,
    aged: pd.DataFrame,
    labelled_before: bool = False,
    newest: pd.DataFrame | None = None,
    usual: float | None = None,
    following: pd.DataFrame | None = None,
) -> list[Check]:
    """Six checks of n rows in their order, each with its score: the share of rows that are sound.

    `held` are rows held out at release. `aged` are predictions older than the label delay, with `outcome`, what came back, and `gold`, what
    an audit found, NaN where there is none; `labelled_before` is whether labels have come at all. `newest` are the newest labelled
    predictions, however young, with the same: what audits contradict of them is in the evidence of `quality:accuracy`; `aged` where they
    are left out. `usual` is the share of rows that lacked a label when they came best (`usually_lacking`). Rows that come again are counted
    among those of the release that were `following` one another, `held` where they are left out. It fails where more rows are
    flawed than at release beyond chance (Fisher), or where later rows are flawed more often than earlier ones (Mann-Whitney of their
    places); labels, where they lack more often than before, or than when they came best, or are contradicted, beyond a share that matters.
    """
    least = problem.watch.min_window
    if min(len(window), len(held)) < least:
        reason = f"{len(window)} predictions, {len(held)} rows of the release; {least} of each are needed"
        of_rows = ("completeness", "consistency", "uniqueness", "validity")
        made = [undecided(f"quality:{name}", ASKED[name], reason, len(window), limit=level(problem), unit=UNIT) for name in of_rows]
    else:
        # A rule that only one side could break would tell of the side, not of the rows.
        known = set(held.columns) & set(window.columns)
        before, now = flaws(contract, held, known), flaws(contract, window, known)
        # The more rows there are, the more of them are the same by chance.
        following = held if following is None else following
        size = min(len(following), len(window))
        newer = [rows.tail(size) for rows in (window, following)]
        now["uniqueness"], before["uniqueness"] = (flaws(contract, rows, known)["uniqueness"] for rows in newer)
        # Autocorrelated ones count as fewer; so many that are the same as at release are one event, more of them are not.
        worth = {name: [inflation(flags) for flags in (now[name], before[name])] for name in now}
        again, usually = (copies(contract, rows) for rows in newer)
        worth["uniqueness"] = [min(again, max(2.0, usually)), usually]
        made = [_of_rows(problem, name, before[name], flawed, worth[name]) for name, flawed in now.items()]
        if not with_values(contract.features, window):
            # That they are not there is told; of what is not there nothing else can be.
            made = [check if check.name == "quality:completeness" else _nothing_there(problem, check, len(window)) for check in made]
    told = aged["outcome"].notna().to_numpy()
    accuracy = _accuracy(problem, _contradicted(aged[told]))
    newest = aged if newest is None else newest
    lately = [_contradicted(newest[newest["outcome"].notna()].tail(times * problem.watch.window)) for times in LATELY]
    accuracy = replace(accuracy, evidence=accuracy.evidence | {"lately": _doubt(lately)})
    return sorted([*made, _timeliness(problem, ~told, labelled_before, usual), accuracy], key=lambda check: check.name)


def _nothing_there(problem: Problem, check: Check, n: int) -> Check:
    return undecided(check.name, check.question, "no feature is there to be looked at", n, limit=level(problem), unit=UNIT)


def usually_lacking(ledger: Iterable[dict[str, Any]]) -> float | None:
    """The share of rows that lacked a label when labels came best, as the newest look told it; None where none did.

    `ledger` is the evidence of earlier decisions, newest first.
    """
    checks = (check for evidence in ledger for check in evidence["checks"] if check["name"] == "quality:timeliness")
    return next((float(check["evidence"]["usual"]) for check in checks if check["evidence"].get("usual") is not None), None)


def scores(flawed: np.ndarray) -> list[float]:
    """The share of sound rows in each of ten parts of n flags, in their order."""
    return [float(1 - part.mean()) for part in np.array_split(flawed, PARTS) if len(part)]


def _of_rows(problem: Problem, name: str, before: np.ndarray, flawed: np.ndarray, worth: list[float]) -> Check:
    """The larger of two questions, each at half the level: more than at release, and more than earlier in the window.

    So many flawed rows of the window, and of the release, tell as much as one.
    """
    n, limit = len(flawed), level(problem)
    more = _more(flawed, before, worth)
    places = np.arange(n)
    later = 1.0
    if flawed.any() and not flawed.all():
        # Mann-Whitney of the places, as many rows as they are worth.
        found = stats.mannwhitneyu(places[flawed], places[~flawed], alternative="greater", method="asymptotic")
        later = float(stats.norm.sf(stats.norm.isf(found.pvalue) / np.sqrt(worth[0])))
    p = min(1.0, 2 * min(more, later))
    verdict: Verdict = "fail" if p < limit else "pass"
    trend = ", rising along the window" if 2 * later < limit else ""
    reason = (
        f"{flawed.mean():.2%} of {n:,} predictions are flawed{trend}, {before.mean():.2%} of the release's {len(before):,} rows are: "
        f"p = {p:.1e}, limit {limit:.1e}"
    )
    return _check(name, verdict, reason, flawed, limit, {"p_value": p, "trend": scores(flawed), "before": float(1 - before.mean())})


def _timeliness(problem: Problem, lacking: np.ndarray, labelled_before: bool, usual: float | None) -> Check:
    """Whether rows whose labels are due lack them more often than those before them did: where some never come, that is usual.

    Those before them may be of the same outage: what was usual when labels came best stays in the evidence.
    """
    n, least, limit = len(lacking), 2 * problem.watch.min_window, level(problem)
    if n < least or lacking.all():
        said = (
            f"none of {n:,} rows older than the label delay has a label"
            if n >= least
            else f"{n} rows are older than the label delay; {least} are needed"
        )
        if n >= least and labelled_before:
            told: dict[str, object] = {"trend": scores(lacking), "usual": usual}
            return _check("timeliness", "fail", f"{said}, and labels did come before", lacking, limit, told)
        return undecided("quality:timeliness", ASKED["timeliness"], said, n, limit=limit, unit=UNIT, evidence={"usual": usual})
    earlier, later = np.array_split(lacking, 2)
    worth = [inflation(later), inflation(earlier)]
    p, than = _more(later, earlier, worth), float(earlier.mean())
    before = f"{than:.1%} of the first {len(earlier):,} rows older than the label delay have no label"
    if usual is not None and usual < than:
        rows = len(later) / worth[0]
        p, than = float(stats.binom.sf(round(later.mean() * rows) - 1, round(rows), usual)), usual
        before += f", {usual:.1%} or less when labels came best"
    verdict: Verdict = "fail" if p < limit and later.mean() - than > LATE else "pass"
    reason = f"{before}, {later.mean():.1%} of the last {len(later):,}: p = {p:.1e}, limit {limit:.1e}; {LATE:.0%} more matter"
    # Of many looks the best one is lucky: what chance may have added counts as usual.
    high = [_high(half, count) for half, count in zip((later, earlier), worth, strict=True)]
    found: dict[str, object] = {"p_value": p, "trend": scores(lacking), "usual": min([*high, *([] if usual is None else [usual])])}
    return _check("timeliness", verdict, reason, lacking, limit, found)


def _high(flags: np.ndarray, worth: float) -> float:
    """The upper bound of a share of flags (Wilson, 99.9%), where so many rows tell as much as one."""
    rows = max(1, round(len(flags) / worth))
    return float(stats.binomtest(round(flags.mean() * rows), rows).proportion_ci(0.999, method="wilson").high)


def _accuracy(problem: Problem, wrong: np.ndarray) -> Check:
    """Whether audits contradict a share of the labels that matters."""
    n, least = len(wrong), problem.gate.min_group
    if n < least:
        reason = f"{n} rows older than the label delay have a label and an audit; {least} are needed"
        return undecided("quality:accuracy", ASKED["accuracy"], reason, n, limit=1 - NOISE, unit=UNIT)
    verdict = beyond(int(wrong.sum()), n, NOISE, level(problem))
    reason = f"audits contradict {int(wrong.sum()):,} of {n:,} labels, {wrong.mean():.1%}; {NOISE:.0%} matters beyond chance"
    return _check("accuracy", verdict, reason, wrong, 1 - NOISE, {"trend": scores(wrong)})


def _contradicted(labelled: pd.DataFrame) -> np.ndarray:
    """Of the labelled rows that were audited as well, which labels audits contradict, in their order."""
    both = labelled[labelled["gold"].notna()]
    return (both["outcome"] != both["gold"]).to_numpy()


def _doubt(lately: list[np.ndarray]) -> dict[str, object]:
    """How often audits contradict the newest labels: of the stretch where chance explains it least, how likely it is.

    Binomial, where no more labels were wrong than matters; after Bonferroni. Too few for an alarm, they may still be enough to doubt harm
    that these labels show.
    """
    least, wrong = min(((float(stats.binom.sf(wrong.sum() - 1, len(wrong), NOISE)), wrong) for wrong in lately), key=lambda told: told[0])
    return {"audited": len(wrong), "contradicted": int(wrong.sum()), "p_value": min(1.0, len(lately) * least)}


def _more(flags: np.ndarray, than: np.ndarray, worth: list[float]) -> float:
    """How likely chance brings about that flags are so much more frequent (Fisher), where so many rows tell as much as one."""
    return fisher(*((round(each.sum() / count), round((~each).sum() / count)) for each, count in zip((flags, than), worth, strict=True)))


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
