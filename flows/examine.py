"""What does the log say of the champion's newest window, and what is to be done about it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.audit import in_time, left
from flows.ingest import LOOKED_BACK, lesson_of, trusted
from flows.parity import replay
from flows.population import (
    SLICE_ROWS,
    Population,
    answered,
    begun,
    drift_failed,
    drift_judged,
    fresh,
    labelled,
    onset_of,
    outcomes,
    population,
)
from flows.setting import Setting
from ratchet.audit import AUDIT, chances, drawn, ends
from ratchet.check import Check
from ratchet.contract import Contract
from ratchet.data.entities import newest_of_each
from ratchet.database import now
from ratchet.decision import JUDGEMENTS, Decision, digest, told_only
from ratchet.lesson import Lesson, Span, called, inside
from ratchet.log import Stretch
from ratchet.monitoring.concept_drift import Stream
from ratchet.monitoring.cycle import unspanned
from ratchet.monitoring.decay import at_release
from ratchet.monitoring.estimate import NOTHING, Audited, Audits
from ratchet.monitoring.feedback_loop import Ratio, disparity
from ratchet.monitoring.label_ids import label_ids
from ratchet.monitoring.panel import Released, held_of, on_labels, on_the_way, told_apart, typed, without_labels
from ratchet.monitoring.quality import LATELY, usually_lacking
from ratchet.monitoring.silent_failure import live_slices
from ratchet.monitoring.skew import score_skew
from ratchet.problem import Problem, counted
from ratchet.release import Release
from ratchet.retraining import ACTIONS, DRIFT, HARM, UNANSWERED, Means, watch
from ratchet.store import Store

BESIDE = ("volume", "clock", "quality", "feedback", "disparity", "label_ids")
# What is asked of rows that span a whole cycle: of predictions, and of those whose labels are in.
OF_CYCLE, OF_LABELS = (*DRIFT, "estimate"), ("decay", "live_slices")
# A look is on schedule up to so many times what lies between two.
LATE_LOOK = 2
# Audits are looked for in so many windows before the newest one.
BEFORE = 10
# Looks of twelve weeks tell how many rows are usual at which time; of long intervals there are few.
USUAL, LEAST_LOOKS, MOST_LOOKS = 84 * 86400.0, 60, 25_000


@task(cache_policy=NO_CACHE)
def examine(setting: Setting, release: Release) -> tuple[list[Check], Decision]:
    """Run every monitor on the champion's newest window, and apply the policy."""
    store, problem, contract = setting.store, setting.problem, release.contract.as_told_by(setting.contract)
    version, watched = release.version, setting.problem.watch
    kept_out, found_sound = lesson_of(setting, begun=1), trusted(setting)
    released = released_of(problem, release, contract)
    seen = population(setting, version, released, kept_out)
    # No row of the window is of later.
    window, stretch, present = seen.window, seen.stretch, now()
    patience, hours = in_time(setting), watched.cycle_hours
    audited = audits_of(store, version, stretch, watched.window, patience, stretch.without)
    apart = told_apart(problem, released, seen.spread)
    checks = _told_only_of(without_labels(problem, released, window, apart, seen.spread), () if seen.spans else OF_CYCLE, hours)
    checks.append(_score_skew(problem, release, window))
    moved = [check.as_dict() for check in told_only(checks, watched.advisory)]
    onset, used, taught = onset_of(setting, version, drift_failed(moved), drift_judged(moved))
    known = labelled(setting, version, contract, seen, onset, kept_out, found_sound, present)
    due = present - timedelta(days=watched.label_delay_days)
    aged = typed(store.aged(version, due, SLICE_ROWS), contract)
    aged = aged.assign(gold=aged["gold"].mask(inside(found_sound, aged["seq"].to_numpy(int))))
    looks, unseen = _looks(setting, present)
    beside = _beside_audits(store, version, known.doubtful, problem)
    before = reversed(store.decisions(*ACTIONS, newest=LOOKED_BACK, subject=f"version {version}"))
    usual = usually_lacking(entry.evidence for entry in before)
    checks += on_the_way(problem, released, window, aged, looks, store.labelled(), beside, usual)
    checks.append(label_ids(problem, *store.came_lately(patience, watched.window)))
    checks += disparity(problem, _ratios(store, contract))
    checks.append(live_slices(problem, contract, held_of(released), known.population.tail(SLICE_ROWS)))
    # By what has come last, not by the clock: the same log tells the same, whatever the time.
    lately = [moment.to_pydatetime() for moment in (window["at"].max(), known.every["label_at"].max()) if not pd.isna(moment)]
    finished = due if kept_out.until is not None else min(present, max(lately, default=present))
    told = partial(outcomes, setting, version, kept_out, found_sound, finished)
    wrong = Stream(watched.detector, (part["wrong"].to_numpy(float) for part in told()))
    checks += on_labels(problem, released, seen.spread, apart, known.newest, wrong, audited, known.doubtful)
    checks = [_due_only(check, problem) if kept_out.until is not None else check for check in told_only(checks, watched.advisory)]
    checks = _told_only_of(checks, (() if seen.spans else OF_CYCLE) + (() if known.spans else OF_LABELS), hours)
    checks = [_finished(check, hours) for check in checks]
    concept = next(check for check in checks if check.name == "concept_drift")
    began = begun(setting, version, onset, concept, told())
    learnt = replace(kept_out, since=began if began > 1 else 0)
    short = max(0, watched.min_labels - fresh(known.sound, learnt, used, taught))
    # Whose labels have stopped is asked where harm waits for them.
    silent = any(check.verdict == "fail" and check.name in HARM for check in checks) and not store.labelled_since(patience)
    means = _means(setting, version, seen, learnt, patience, short, silent)
    inputs = {
        "version": version,
        "from": int(window["seq"].min()) if len(window) else 0,
        "to": int(window["seq"].max()) if len(window) else 0,
        # Where the rows begin that are spread over a cycle.
        "spread_from": stretch.first,
        "onset": onset,
        "labels": len(known.newest),
        # The place of the newest label among all that were looked at, whatever prediction it is of.
        "labels_seen": int(known.every["label_seq"].max()) if len(known.every) else 0,
        # What they say may be corrected without another one coming.
        "labels_say": digest(known.newest[["id", "truth"]].to_numpy(object).tolist()),
        "outcomes": concept.n,
        # Of younger rows labels of one class come first, or may; None where those of both come as soon.
        "judged_until": kept_out.until,
        "audited": len(audited.here),
        "audited_before": len(audited.earlier),
        "audited_bought": len(audited.bought),
        "audit_share": means.audit_share,
        "paused": means.paused,
        "cooling": means.cooling_days > 0,
        "retrainings_left": means.retrainings_left,
        "unanswered": means.unanswered >= UNANSWERED,
        "advisory": sorted(check.name for check in checks if check.verdict == "fail" and not check.blocking),
        # These change with the clock and the ledger, whatever the window holds.
        "beside": sorted(check.name for check in checks if check.verdict == "fail" and check.name.split(":")[0] in BESIDE),
    }
    decision = watch(checks, f"version {version}", inputs, means)
    left_out = {"without": learnt.without, "audited": learnt.audited}
    rows = {"since": min(inputs["from"], unseen or inputs["from"]), "answered": _stretches(store, version, looks[-1][1])}
    return checks, replace(decision, evidence=decision.evidence | {"kept_out": left_out, "rows": rows})


def _score_skew(problem: Problem, release: Release, window: pd.DataFrame) -> Check:
    """Whether the release answers a window as it did. Rows that lack a column cannot be replayed; that one is gone is told by others."""
    if any(column.name not in window.columns for column in release.contract.requested):
        window = window.head(0)
    return score_skew(problem, window, window["probability"].to_numpy(float) if window.empty else replay(release, window))


def _looks(setting: Setting, present: datetime) -> tuple[list[tuple[datetime, int, int]], int | None]:
    """What every look saw, the one of now the last; and the first place of the log that none saw, None where the one before was not on schedule.

    Where more rows come than a window holds, what a fault spoils begins before it: after the look before, if that was on schedule.
    """
    store, every = setting.store, setting.problem.watch.every_seconds
    looks = store.looks(round(min(MOST_LOOKS, max(LEAST_LOOKS, USUAL / every))))
    on_time = bool(looks) and present - looks[-1][0] <= timedelta(seconds=LATE_LOOK * every)
    unseen = looks[-1][1] + 1 if on_time else None
    return [*looks, (present, *store.arrived(looks[-1][1] if looks else None))], unseen


def _stretches(store: Store, version: str, last: int) -> list[Span] | None:
    """The stretches of the log, up to its `last` place, in which a version answered; None where nobody routed to it."""
    spans = store.answering(version)
    return [(store.place_at(begun) + 1, last if ended is None else store.place_at(ended)) for begun, ended in spans] or None


def _told_only_of(checks: Sequence[Check], names: Sequence[str], hours: float) -> list[Check]:
    """The checks; those called so, whose rows do not span a cycle, are told and not judged by."""
    return [unspanned(check, hours) if called(check.name, names) else check for check in checks]


def _finished(check: Check, hours: float) -> Check:
    """The check; where labels of the concept are too few to tell, with when the next ones count."""
    if check.name != "concept_drift" or check.verdict != "undecided" or not hours:
        return check
    return replace(check, reason=f"{check.reason}; labels count from the end of each cycle of {hours:g} hours on (watch.cycle_hours)")


def _due_only(check: Check, problem: Problem) -> Check:
    """A check of how good decisions are, with why younger rows are not judged."""
    if check.name not in ("decay", "concept_drift", "live_slices"):
        return check
    days = f"{problem.watch.label_delay_days:g} days"
    why = f"labels of one class come sooner, or may where many are not in yet: rows are judged once they are {days} old"
    # The detector reads them in their order, of which audits are none.
    why += "" if check.name == "concept_drift" else ", or audited"
    return replace(check, reason=f"{check.reason}; {why}")


def released_of(problem: Problem, release: Release, contract: Contract) -> Released:
    """What a release tells of the rows it was made from. One of before, without labelled rows, has none to estimate by.

    Where problem.yaml counts costs otherwise than when it was released, its loss is told anew, by its held-out rows.
    """
    told, names = release.facts["released"], [column.name for column in contract.features]
    held = release.held if release.held is not None else pd.DataFrame(columns=[*names, "probability", "truth"], dtype=float)
    relies_on = tuple(release.facts.get("relies_on", names))
    if told.get("counted", counted(problem)) != counted(problem):
        told = at_release(problem, *(newest_of_each(contract, held)[name].to_numpy(float) for name in ("probability", "truth")))
    asked = contract, release.encoder, release.reference, held, relies_on
    return Released(*asked, told["mean"], told["error"], release.threshold, release.newest)


def audits_of(store: Store, version: str, stretch: Stretch, window: int, since: datetime, without: Sequence[Span] = ()) -> Audited:
    """What audits found in a stretch of a version's predictions, in those before it, and what was bought last.

    Before it are ten windows of so many rows; those in stretches `without` were not what they seemed, and tell nothing. What was bought last
    counts wherever it is, if it was bought `since` some time.
    """
    if not stretch.rows:
        return NOTHING
    begin = store.place_before(version, stretch.first, BEFORE * min(window, stretch.rows))
    draws = store.draws()
    last = [(draw, end) for draw, end in zip(draws, ends(draws), strict=True) if draw.decision and draw.at and draw.at >= since][-1:]
    found = store.audits(version, min([begin, *(draw.since - 1 for draw, _ in last)]))
    chance = chances(draws, found["seq"].to_numpy(int))
    # What is audited beside the draw was not chosen by chance.
    told = found.assign(chance=chance)[drawn(found["id"], chance)]
    places = told["seq"].to_numpy(int)
    asked = np.zeros(len(told), dtype=bool)
    for draw, end in last:
        asked = (places >= draw.since) & (places < end) & drawn(told["id"], np.full(len(told), draw.share))
    here, known = places >= stretch.first, (places <= stretch.last) & ~inside(without, places)
    here, before, bought = (known & rows for rows in (here & ~asked, ~here & ~asked & (places > begin), asked))
    values = [tuple(told[rows][name].to_numpy(float) for name in ("probability", "gold", "chance")) for rows in (here, before, bought)]
    return Audited(*(Audits(*each) for each in values))


def _beside_audits(store: Store, version: str, labelled: pd.DataFrame, problem: Problem) -> pd.DataFrame:
    """The newest labelled rows with `outcome`, their newest label that is of no audit, and `gold`, what an audit found; NaN where there is none."""
    newest = labelled.tail(max(LATELY) * problem.watch.window)
    told = store.audits(version, int(newest["seq"].min()) - 1 if len(newest) else 0).set_index("id")
    outcome = newest["truth"].astype(float).mask((newest["provenance"] == AUDIT).to_numpy())
    return newest.assign(outcome=newest["id"].map(told["outcome"]).fillna(outcome), gold=newest["id"].map(told["gold"]).astype(float))


def _ratios(store: Store, contract: Contract) -> dict[str, list[Ratio]]:
    """By protected group, the lowest ratio of favourable decisions of each generation that went live, oldest first, up to the one that answers.

    It is what the gate found, also of one that a person promoted over its refusal.
    """
    told: dict[str, list[Ratio]] = {column.name: [] for column in contract.protected}
    weighed = {entry.subject: entry.evidence["checks"] for entry in store.decisions(*JUDGEMENTS) if entry.evidence["checks"]}
    for version in _standing([route.champion for route in store.routes() if route.verified]):
        for check in weighed.get(f"version {version}", []):
            kind, _, group = check["name"].partition(":")
            if kind == "fairness" and group in told and None not in (check["value"], check["low"], check["high"]):
                told[group].append(Ratio(check["value"], check["low"], check["high"], check["n"]))
    return told


def _standing(routed: Sequence[str]) -> list[str]:
    """The versions that led to the one that answers, oldest first, by those routed to in turn: one that was set back does harm no more.

    >>> _standing(["1", "2", "2", "1", "3"])
    ['1', '3']
    """
    made: list[str] = []
    for version in routed:
        made = [*made[: made.index(version)], version] if version in made else [*made, version]
    return made


def _means(
    setting: Setting,
    version: str,
    seen: Population,
    learnt: Lesson,
    patience: datetime,
    labels_short: int,
    silent: bool,
) -> Means:
    """What may still be done and spent this year; labels that were to come before `patience` have had their time."""
    store, stretch, told = setting.store, seen.stretch, setting.problem.watch
    present = now()
    year = present - timedelta(days=365.25)
    asked = store.decisions("retrain")
    done = answered(setting)
    retrained = [entry.at for entry in asked if entry.id in done]
    since = (present - max(retrained)).total_seconds() / 86400 if retrained else float("inf")
    draws = store.draws()
    chance = chances(draws, seen.spread["seq"].to_numpy(int))
    asked_for = [draw.at for draw in draws if draw.at is not None and draw.share > 0]
    # A person who resumes has seen to them.
    seen_to = max((entry.at for entry in store.decisions("resume", newest=1)), default=datetime.min)
    lapsed = [
        (draw, end) for draw, end in zip(draws, ends(draws), strict=True) if draw.decision and draw.at and seen_to < draw.at < patience
    ]
    drawn_here = set(store.drawn(stretch, version)["id"]) - set(store.audits(version, stretch.first - 1)["id"])
    return Means(
        paused=store.paused,
        lesson=learnt,
        labels_short=labels_short,
        labels_silent=silent,
        cooling_days=max(0.0, told.cooldown_days - since),
        retrainings_left=max(0, told.retrainings_per_year - sum(at >= year for at in retrained)),
        rows=stretch.rows,
        audit_share=float(chance.mean()) if len(chance) else 0.0,
        unanswered=_in_vain(store, {entry.id for entry in asked} - done),
        audits_left=left(setting, version, drawn_here, stretch.without),
        audits_awaited=len(store.open_audits(patience, version, stretch.without)),
        audits_silent=bool(asked_for) and max(asked_for) < patience and not store.bought(patience),
        audits_unanswered=any(store.told_of(draw, end, version) == 0 for draw, end in lapsed[-1:]),
    )


def _in_vain(store: Store, unanswered: set[str]) -> int:
    """How often a retraining was asked for since a generation was made last, or a person resumed it; not while another was at work."""
    turns = store.decisions(*JUDGEMENTS, "resume", newest=1)
    last = turns[0].at if turns else datetime.min
    triggers = {f"decision {identity}" for identity in unanswered}
    at_work = sum(e.at > last and e.evidence["inputs"]["trigger"] in triggers for e in store.decisions("superseded"))
    return store.looks_deciding(unanswered, last) - at_work
