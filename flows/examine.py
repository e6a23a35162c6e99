"""What does the log say of the champion's newest window, and what is to be done about it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.audit import in_time, left, looked_at
from flows.ingest import LOOKED_BACK, lesson_of, sound_rows, trusted
from flows.parity import replay
from flows.setting import Setting
from ratchet.audit import AUDIT, chances, drawn, ends
from ratchet.check import Check
from ratchet.contract import Contract
from ratchet.data.entities import newest_of_each
from ratchet.database import now
from ratchet.decision import JUDGEMENTS, Decision, digest, told_only
from ratchet.lesson import EVERYTHING, Lesson, Span, begins, called, inside
from ratchet.log import Stretch
from ratchet.monitoring.concept_drift import Stream
from ratchet.monitoring.cycle import in_cycles, spanning, unspanned
from ratchet.monitoring.decay import WINDOWS, at_release
from ratchet.monitoring.estimate import NOTHING, Audited, Audits
from ratchet.monitoring.feedback_loop import Ratio, disparity
from ratchet.monitoring.panel import Released, held_of, on_labels, on_the_way, told_apart, typed, without_labels
from ratchet.monitoring.quality import LATELY, usually_lacking
from ratchet.monitoring.silent_failure import live_slices
from ratchet.monitoring.skew import score_skew
from ratchet.problem import Problem, counted
from ratchet.release import Release
from ratchet.retraining import ACTIONS, DRIFT, HARM, UNANSWERED, Means, drifts, watch
from ratchet.store import Store

# Labels are read from the store so many at a time.
OUTCOMES = 20_000
# A slice is a part of the rows: to see one it takes more of them than to see the mean.
SLICE_ROWS = 20_000
BESIDE = ("volume", "clock", "quality", "feedback", "disparity")
# What is asked of rows that span a whole cycle: of predictions, and of those whose labels are in.
OF_CYCLE, OF_LABELS = (*DRIFT, "estimate"), ("decay", "live_slices")
# Of a cycle of which more rows than a quarter were faults nobody knows what it would be like.
LEFT = 0.75
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
    window = typed(store.window(newest=problem.watch.window, version=release.version), contract)
    present = now()
    patience, hours = in_time(setting), problem.watch.cycle_hours
    kept_out, found_sound = lesson_of(setting, begun=1), trusted(setting)
    released = released_of(problem, release, contract)
    entity = contract.entity if contract.entity in window and contract.entity in released.held else None
    stretch = looked_at(setting, release.version, kept_out, entity, until=int(window["seq"].max()) if len(window) else 0)
    spoilt, since = stretch.without, store.steady(release.version)
    spread = window
    if hours and stretch.whole:
        spread = typed(store.window(newest=problem.watch.window, version=release.version, spread=stretch), contract)
    spans = stretch.whole and _enough(stretch)
    audited = audits_of(store, release.version, stretch, problem.watch.window, patience, spoilt)
    apart = told_apart(problem, released, spread)
    checks = _told_only_of(without_labels(problem, released, window, apart, spread), () if spans else OF_CYCLE, hours)
    lost = [column.name for column in release.contract.requested if column.name not in window.columns]
    replayed = window["probability"].to_numpy(float) if lost or window.empty else replay(release, window)
    # Rows that lack a column cannot be replayed; that one is gone is told by others.
    checks.append(score_skew(problem, window.head(0) if lost else window, replayed[:0] if lost else replayed))
    advisory = problem.watch.advisory
    moved = [check.as_dict() for check in told_only(checks, advisory)]
    onset, used, taught = onset_of(setting, release.version, _drifted(moved), _judged(moved))
    newest = max(SLICE_ROWS, WINDOWS * problem.watch.window, problem.watch.min_labels)
    every = _labelled(setting, release.version, newest, kept_out, contract)
    # What was no fault of the model is not held against it.
    teaching = sound_rows(setting, every, kept_out)
    # Rows of before the population moved may teach, but tell nothing of how it is answered.
    known = teaching[teaching["seq"] >= onset]
    labelled, labels_span = known.tail(WINDOWS * problem.watch.window), True
    if hours:
        # Of a population that began at noon there are no rows of the night before.
        then = max((moment for moment in (since, _first(known["at"]) if onset > 1 else None) if moment is not None), default=None)
        due_only = {"labelled": True, "until": kept_out.until}
        of_labels = store.stretch(newest, hours, release.version, since=then, without=spoilt, entity=entity, **due_only)
        labels_span = of_labels.whole and _enough(of_labels)
        if of_labels.whole:
            evenly = _labelled(setting, release.version, newest, kept_out, contract, of_labels)
            sound = sound_rows(setting, evenly, kept_out)
            known = sound[sound["seq"] >= onset]
            # Nor is it a day where the labels of half of it are doubted.
            labels_span = labels_span and len(sound) >= LEFT * len(evenly)
        each = (newest_of_each(contract, known) if entity else known).assign(at=known["at"].clip(upper=present))
        labelled = each.iloc[spanning(each["at"].to_numpy("datetime64[ns]"), WINDOWS * problem.watch.window, hours, then)]
    # What a person found sound is doubted no more.
    doubtful = every[(every["seq"] >= onset).to_numpy() & ~inside(found_sound, every["seq"].to_numpy(int))]
    due = present - timedelta(days=problem.watch.label_delay_days)
    aged = typed(store.aged(release.version, due, SLICE_ROWS), contract)
    aged = aged.assign(gold=aged["gold"].mask(inside(found_sound, aged["seq"].to_numpy(int))))
    looks = store.looks(round(min(MOST_LOOKS, max(LEAST_LOOKS, USUAL / problem.watch.every_seconds))))
    # Where more rows come than a window holds, what a fault spoils begins before it: after the look before, if that was on schedule.
    on_time = bool(looks) and present - looks[-1][0] <= timedelta(seconds=LATE_LOOK * problem.watch.every_seconds)
    unseen = looks[-1][1] + 1 if on_time else None
    looks.append((present, *store.arrived(looks[-1][1] if looks else None)))
    beside = _beside_audits(store, release.version, doubtful, problem)
    before = reversed(store.decisions(*ACTIONS, newest=LOOKED_BACK, subject=f"version {release.version}"))
    usual = usually_lacking(entry.evidence for entry in before)
    checks += on_the_way(problem, released, window, aged, looks, store.labelled(), beside, usual)
    checks += disparity(problem, _ratios(store, contract))
    checks.append(live_slices(problem, contract, held_of(released), known.tail(SLICE_ROWS)))
    # By what has come last, not by the clock: the same log tells the same, whatever the time.
    lately = [moment.to_pydatetime() for moment in (window["at"].max(), every["label_at"].max()) if not pd.isna(moment)]
    finished = due if kept_out.until is not None else min(present, max(lately, default=present))
    first_answer = min((begun for begun, _ in store.answering(release.version)), default=None)

    def told() -> Iterator[pd.DataFrame]:
        return in_cycles(_wrong(store, release.version, kept_out, found_sound), hours, finished, first_answer)

    wrong = Stream(problem.watch.detector, (part["wrong"].to_numpy(float) for part in told()))
    checks += on_labels(problem, released, spread, apart, labelled, wrong, audited, doubtful)
    checks = [_due_only(check, problem) if kept_out.until is not None else check for check in told_only(checks, advisory)]
    checks = _told_only_of(checks, (() if spans else OF_CYCLE) + (() if labels_span else OF_LABELS), hours)
    checks = [_finished(check, hours) for check in checks]
    concept = next(check for check in checks if check.name == "concept_drift")
    began = begun(setting, release.version, onset, concept, told())
    learnt = replace(kept_out, since=began if began > 1 else 0)
    # What was left out then, and teaches now, is as new as what has come since.
    places, kinds = teaching["seq"].to_numpy(int), teaching["provenance"].to_numpy(object)
    fresh = (places >= learnt.since) & ((teaching["label_seq"].to_numpy(int) > used) | ~taught.teaches(places, kinds))
    # Whose labels have stopped is asked where harm waits for them.
    silent = any(check.verdict == "fail" and check.name in HARM for check in checks) and not store.labelled_since(patience)
    means = _means(setting, release.version, stretch, spread, learnt, patience, max(0, problem.watch.min_labels - int(fresh.sum())), silent)
    inputs = {
        "version": release.version,
        "from": int(window["seq"].min()) if len(window) else 0,
        "to": int(window["seq"].max()) if len(window) else 0,
        # Where the rows begin that are spread over a cycle.
        "spread_from": stretch.first,
        "onset": onset,
        "labels": len(labelled),
        # The place of the newest label among all that were looked at, whatever prediction it is of.
        "labels_seen": int(every["label_seq"].max()) if len(every) else 0,
        # What they say may be corrected without another one coming.
        "labels_say": digest(labelled[["id", "truth"]].to_numpy(object).tolist()),
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
    decision = watch(checks, f"version {release.version}", inputs, means)
    left_out = {"without": learnt.without, "audited": learnt.audited}
    rows = {"since": min(inputs["from"], unseen or inputs["from"]), "answered": _stretches(store, release.version, looks[-1][1])}
    return checks, replace(decision, evidence=decision.evidence | {"kept_out": left_out, "rows": rows})


def _stretches(store: Store, version: str, last: int) -> list[Span] | None:
    """The stretches of the log, up to its `last` place, in which a version answered; None where nobody routed to it."""
    spans = store.answering(version)
    return [(store.place_at(begun) + 1, last if ended is None else store.place_at(ended)) for begun, ended in spans] or None


def _first(at: pd.Series) -> datetime | None:
    """The earliest of some times, None where there is none."""
    return None if at.empty else at.min().to_pydatetime()


def _enough(stretch: Stretch) -> bool:
    """Whether so many rows of a cycle are left without those of faults that it is one still."""
    return stretch.rows >= LEFT * (stretch.rows + stretch.spoilt)


def _told_only_of(checks: Sequence[Check], names: Sequence[str], hours: float) -> list[Check]:
    """The checks; those called so, whose rows do not span a cycle, are told and not judged by."""
    return [unspanned(check, hours) if called(check.name, names) else check for check in checks]


def _finished(check: Check, hours: float) -> Check:
    """The check; where labels of the concept are too few to tell, with when the next ones count."""
    if check.name != "concept_drift" or check.verdict != "undecided" or not hours:
        return check
    return replace(check, reason=f"{check.reason}; labels count from the end of each cycle of {hours:g} hours on (watch.cycle_hours)")


def _labelled(
    setting: Setting, version: str, newest: int, lesson: Lesson, contract: Contract, spread: Stretch | None = None
) -> pd.DataFrame:
    """The newest labelled rows, or so many spread over a cycle; of those that are too young to be judged by their labels only what was
    audited, by chance as it was.
    """
    every = typed(setting.store.window(newest=newest, version=version, labelled=True, until=lesson.until, spread=spread), contract)
    if lesson.until is None:
        return every
    young = typed(setting.store.window(newest=newest, version=version, labelled=True, after=lesson.until), contract)
    parts = [rows for rows in (every, sound_rows(setting, young, lesson)) if len(rows)]
    return pd.concat(parts, ignore_index=True) if parts else every


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
    stretch: Stretch,
    spread: pd.DataFrame,
    learnt: Lesson,
    patience: datetime,
    labels_short: int,
    silent: bool,
) -> Means:
    """What may still be done and spent this year; labels that were to come before `patience` have had their time.

    `spread` are predictions of the stretch that is estimated, evenly spread.
    """
    store, told = setting.store, setting.problem.watch
    present = now()
    year = present - timedelta(days=365.25)
    asked = store.decisions("retrain")
    done = answered(setting)
    retrained = [entry.at for entry in asked if entry.id in done]
    since = (present - max(retrained)).total_seconds() / 86400 if retrained else float("inf")
    draws = store.draws()
    chance = chances(draws, spread["seq"].to_numpy(int))
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


def _wrong(store: Store, version: str, lesson: Lesson, trusted: Sequence[Span]) -> Iterator[pd.DataFrame]:
    """Whether a version's decisions were wrong, in the order of their labels, so many at a time; NaN where that is not to be judged by.

    Columns: wrong, prediction (its place of the log), made (when it was) and at (when its label came).
    Where labels of one class come sooner, that order would tell of the labels: in the order of the predictions, as far as labels are due.
    Of rows that a person found sound it is what their labels say by now: those that were corrected meanwhile told something else at first.
    """
    after, corrected = 0, [place for first, last in trusted for place in store.corrected(version, first, last)]
    while len(part := store.outcomes(after, OUTCOMES, version, lesson.until)):
        sound = lesson.teaches(part["prediction"].to_numpy(int), part["provenance"].to_numpy(object))
        # Of two classes, what is corrected was right where it had been wrong.
        wrong = part["wrong"].to_numpy(bool) ^ part["prediction"].isin(corrected).to_numpy()
        yield part[["prediction", "made", "at"]].assign(wrong=np.where(sound, wrong.astype(float), np.nan))
        after = int(part["seq" if lesson.until is None else "prediction"].iloc[-1])


def onset_of(setting: Setting, version: str, drifting: bool, judged: bool = True) -> tuple[int, int, Lesson]:
    """The log's place where the champion's new population begins, the newest label that an earlier retraining may have learnt from, and what
    that one left out.

    The new population begins after the last window that did not drift; without drift every row counts. Where drift cannot be `judged`, it is
    as it was.
    """
    store, subject = setting.store, f"version {version}"
    done = answered(setting)
    asked = [(e.evidence["inputs"], e.at) for e in store.decisions("retrain", subject=subject) if e.id in done]
    # Older decisions do not tell it, but when they were taken.
    used = max((told["labels_seen"] if "labels_seen" in told else store.label_before(at) for told, at in asked), default=0)
    taught = Lesson(**(asked[-1][0].get("lesson", {}) | {"since": 0})) if asked else EVERYTHING
    before = [entry.evidence for entry in store.decisions(*ACTIONS, newest=1, subject=subject)]
    if not before or (judged and not drifting):
        return 1, used, taught
    told, checks = before[0]["inputs"], before[0]["checks"]
    known = not judged or _drifted(checks) or (not _judged(checks) and told["onset"] > 1)
    return told["onset"] if known else told["to"] + 1, used, taught


def begun(setting: Setting, version: str, onset: int, concept: Check, told: Iterable[pd.DataFrame]) -> int:
    """The log's place where the champion's new population (`onset`) or concept begins; 1 where neither has changed.

    `told` are the labels that the detector was fed with, from the first one on, with the places of their predictions. Where they came in
    cycles, their order within one is of chance: a new concept begins with the cycle of the alarm.
    """
    if concept.verdict != "fail" or not concept.blocking:
        return onset
    store, watch = setting.store, setting.problem.watch
    places, passed, alarm = list[int](), 0, int(concept.evidence["at"]) - 1
    for part in told:
        first = 0 if places or watch.cycle_hours else max(0, alarm - passed)
        passed += len(part)
        if passed > alarm:
            places += part["prediction"].iloc[first:].tolist()
        if len(places) >= OUTCOMES:
            break
    return begins(onset, places[:OUTCOMES], watch.window, lambda first, last: store.between(version, first, last, watch.window + 1))


def _drifted(checks: list[dict[str, Any]]) -> bool:
    return any(drifts(check["name"]) and check["verdict"] == "fail" and check["blocking"] for check in checks)


def _judged(checks: list[dict[str, Any]]) -> bool:
    return any(drifts(check["name"]) and check["verdict"] in ("pass", "fail") for check in checks)


def answered(setting: Setting) -> set[str]:
    """The decisions for which a generation was made already, or whose rows had made one that was judged before."""
    again = [entry for entry in setting.store.decisions("superseded") if "same_as" in entry.evidence["inputs"]]
    made = [*setting.store.decisions(*JUDGEMENTS), *again]
    return {str(entry.evidence["inputs"].get("trigger")).removeprefix("decision ") for entry in made}
