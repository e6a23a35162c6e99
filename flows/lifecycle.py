"""How does a generation come to be? Ingest, the stages of dvc.yaml, track, compare, decide, promote, load."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows import ingest
from flows.card import page_of
from flows.compare import Comparison, compare_with, release_checks
from flows.promotion import carry_out, cut_short, last_word, promote, reconcile, set_back
from flows.result import page_key, tell_result
from flows.setting import Setting
from flows.stages import COHORT, STAGES, labelled, scorer
from flows.stress import broken, confirmed, keep, mark, untested
from flows.track import track
from load_tests.run import verdict
from ratchet.check import Check, from_dict
from ratchet.data.encoding import Encoder
from ratchet.data.entities import coded, newest
from ratchet.decision import Decision, decide, digest, gate
from ratchet.draft import drafted
from ratchet.errors import BatchError
from ratchet.evaluation.cost import cost
from ratchet.generation import Generation, labels_of
from ratchet.interval import fit as fit_interval
from ratchet.ledger import Entry
from ratchet.lesson import inside
from ratchet.monitoring.decay import at_release
from ratchet.monitoring.estimate import relied_on
from ratchet.monitoring.excess import MOST_ROWS
from ratchet.monitoring.panel import typed
from ratchet.release import Release, write
from ratchet.report.card import card, checks_table, summary
from ratchet.request import records
from ratchet.settings import code_version
from snapshots.workspace import publish, run_stage

PROBES = 20
REFERENCE_ROWS = 5000
NEWEST_ROWS = 1000
HELD_ROWS = 10_000


def _name() -> str:
    parameters = flow_run.parameters
    return f"{Path(parameters['problem']).name}: new generation, started by {parameters['trigger']}"


@flow(name="lifecycle", flow_run_name=_name)
def lifecycle(
    problem: str,
    batch: str | None = None,
    trigger: str = "a person",
    drift: list[dict[str, Any]] | None = None,
    since: int = 0,
) -> dict[str, Any]:
    """Make one generation of a problem and let the gate decide.

    `batch` is the path of a Parquet batch, or the address of one handed over to MLflow; None takes the labelled rows of the log. `trigger`
    says who or what started it; `drift` are the checks that did, and `since` the place of the log where a new population or concept began.
    Returns the decision, the version and the facts of the run. The same rows, parameters and code make the same generation once, however
    often this is called.
    """
    setting = Setting.of(problem)
    with setting.alone() as free:
        if not free:
            return _superseded(setting, trigger)
        if done := carry_out(setting):
            get_run_logger().warning(done)
        champion = reconcile(setting)
        learnt_from = fill_inbox(setting, batch, champion, since)
        for stage in setting.workspace.definition["stages"]:
            run_one.with_options(name=stage)(setting, stage, Path(batch).stem if batch else "the log")
        publish(setting.workspace, f"{setting.problem.name}: {trigger}")
        return tell_result(setting, _decide(setting, champion, trigger, [from_dict(item) for item in drift or []], learnt_from))


@task(name="ingest", cache_policy=NO_CACHE)
def fill_inbox(setting: Setting, batch: str | None, champion: str | None, since: int) -> tuple[int, str]:
    """Put the next rows and labels where the first stage finds them, and which of them neither teach nor judge.

    What misled the champion may mislead still. Returns from which place of the log on rows teach, 0 being all, and which do, in words.
    """
    before = setting.release(champion) if champion else None
    lesson = ingest.lesson_of(setting, max(since, before.facts.get("since", 0) if before else 0))
    if batch is None:
        lesson_since, said = ingest.from_log(setting, lesson)
        get_run_logger().info("it learns from %s", said)
        return lesson_since, said
    if batch.startswith("runs:/"):
        batch = str(setting.tracker.fetch(batch, setting.settings.home / "batches"))
    ingest.from_file(setting, Path(batch), before, lesson)
    return lesson.since, lesson.said


@task(cache_policy=NO_CACHE)
def run_one(setting: Setting, stage: str, origin: str) -> bool:
    """Run a stage of dvc.yaml, unless DVC knows that nothing changed."""
    begun = time.perf_counter()
    try:
        ran = run_stage(setting.workspace, stage, lambda: STAGES[stage](setting.root))
    except BatchError as error:
        raise BatchError(str(error).replace("batch:", f"{origin}:", 1)) from error
    if ran:
        _spent(setting, stage, time.perf_counter() - begun)
    get_run_logger().info("%s: %s", stage, "done and recorded in dvc.lock" if ran else "unchanged since dvc.lock was written, skipped")
    return ran


def _spent(setting: Setting, what: str, seconds: float) -> None:
    """Note how long something took when it was last done; what is skipped keeps the seconds that it took then."""
    path = setting.root / "seconds.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    with drafted(path) as draft:
        draft.write_text(json.dumps(told | {what: round(seconds, 3)}), encoding="utf-8")


def _superseded(setting: Setting, trigger: str) -> dict[str, Any]:
    reason = "another run is making a generation of this problem already"
    decision = decide("superseded", trigger, [reason], {"trigger": trigger, "flow_run": str(flow_run.id)})
    setting.store.record(decision)
    return {"action": decision.action, "decision": decision.id, "version": None}


def _decide(setting: Setting, champion: str | None, trigger: str, drift: list[Check], learnt_from: tuple[int, str]) -> dict[str, Any]:
    generation = describe(setting, champion, trigger)
    made = setting.tracker.version_of(generation.identity)
    if made is not None:
        # Made before, by a run that may have been cut short: it is judged against the parent that it had then.
        generation = Generation(**{**generation.__dict__, "parent": made.tags.get("parent"), "trigger": made.tags["trigger"]})
    evaluation = json.loads((setting.root / "metrics/evaluation.json").read_text(encoding="utf-8")) | {"learnt_from": learnt_from[1]}
    parent = setting.release(generation.parent) if generation.parent else None
    begun = time.perf_counter()
    comparison = compare.with_options(name="compare with champion")(setting, parent, evaluation["picked"])
    comparison.write(setting.root)
    _spent(setting, "compare", time.perf_counter() - begun)
    checks = release_checks(setting, comparison, [what_it_cost(setting, generation, comparison)])
    run_id, version = record.with_options(name="track and register")(setting, generation, evaluation, checks, comparison, drift)
    inputs = {
        "generation": generation.identity,
        "parent": generation.parent,
        "trigger": generation.trigger,
        "checks": digest([[c.name, c.verdict, c.value, c.limit] for c in checks]),
    }
    decision = gate(checks, f"version {version}", inputs)
    for reason in decision.reasons:
        get_run_logger().info("%s version %s: %s", decision.action, version, reason)
    _explain(setting, generation, version, run_id, decision, checks, evaluation, comparison)
    # A refused generation is released too, but not routed to: a person may overrule the gate.
    release = make_release.with_options(name="release")(setting, generation, version, evaluation, learnt_from[0])
    # Only then: what stands in the ledger can be carried out, and a run that was killed before is asked for again.
    new = setting.store.record(decision)
    if trigger != generation.trigger and trigger.startswith("decision "):
        # The rows that this decision asked to learn from are those of a generation that another one asked for: that answers it as well.
        same = decide("superseded", trigger, [f"its rows make version {version} again"], {"trigger": trigger, "same_as": decision.id})
        setting.store.record(same)
    # A promotion that was carried out once is not repeated: what a person decided since then stands.
    if decision.action == "promote" and (new or cut_short(setting, version)):
        go_live.with_options(name="route and verify")(setting, release, decision)
    load = test(setting, version, decision)
    last = last_word(setting, version)
    setting.tracker.tag(run_id, {"decision": last.action, "decision_id": last.id})
    setting.tracker.finish(run_id)
    return {
        "action": last.action,
        "decision": last.id,
        "reasons": list(last.reasons),
        "version": version,
        "run_id": run_id,
        "generation": generation.identity,
        "load": load,
        "rows": json.loads((setting.root / "metrics/validation.json").read_text(encoding="utf-8")),
    }


def test(setting: Setting, version: str, decision: Decision | Entry) -> dict[str, Any] | None:
    """Put a promoted version under load, once; its numbers. What was decided last of it stands beside it then, its SLO and persons included."""
    load = None
    if decision.action == "promote" and untested(setting, version):
        load = put_under_load.with_options(name="load test")(setting, version, decision)
    setting.tracker.annotate(version, _decided(last_word(setting, version)))
    return load


def _not_held(setting: Setting, version: str, decision: Decision | Entry, unmet: list[str]) -> None:
    """A version that does not hold its SLO does not go on answering, where another one can."""
    undone = set_back(setting, version, unmet, {"failed": version, "decision": decision.id, "load": unmet})
    done = "was set back" if undone else "goes on answering, for there is none to go back to"
    get_run_logger().warning("version %s does not hold its SLO, and %s: %s", version, done, "; ".join(unmet))


def _decided(decision: Decision | Entry) -> dict[str, str]:
    """A decision as the tags of its version."""
    return {"decision": decision.action, "decision_id": decision.id, "reasons": "; ".join(decision.reasons)[:4000]}


def what_it_cost(setting: Setting, generation: Generation, comparison: Comparison) -> Check:
    """The seconds and labels that went into a generation, against what it improves."""
    versions = {item.version: item for item in setting.tracker.versions()}
    labelled_now = sum(count for _, count in generation.labels)
    parent = versions.get(generation.parent or "")
    history = [
        float(item.tags["improvement"])
        for item in versions.values()
        if "improvement" in item.tags and item.tags.get("identity") != generation.identity
    ]
    return cost(
        setting.problem,
        seconds=sum(json.loads((setting.root / "seconds.json").read_text(encoding="utf-8")).values()),
        new_labels=labelled_now - labels_of(parent.tags) if parent else labelled_now,
        difference=comparison.difference,
        n=sum((comparison.errors or {}).values()),
        history=history,
        segments=comparison.segments,
    )


def describe(setting: Setting, parent: str | None, trigger: str) -> Generation:
    """Where the generation in the workspace comes from."""
    rows = pd.read_parquet(setting.root / "data/snapshot.parquet", columns=[setting.contract.target, "provenance"])
    # Those that do not teach were labelled too: what comes after is told by them.
    counts = rows.loc[rows[setting.contract.target].notna(), "provenance"].value_counts().sort_index()
    return Generation(
        problem=setting.problem.name,
        parent=parent,
        snapshot=setting.workspace.digest("data/snapshot.parquet"),
        split=setting.workspace.digest("data/split.parquet"),
        parameters=digest(setting.workspace.parameters),
        declaration=setting.workspace.digest("problem", of="deps"),
        code=setting.workspace.digest("code.txt", of="deps"),
        commit=code_version(),
        trigger=trigger,
        labels=tuple((str(name), int(count)) for name, count in counts.items()),
    )


@task(cache_policy=NO_CACHE)
def compare(setting: Setting, parent: Release | None, picked: str) -> Comparison:
    """Compare with the champion, error by error."""
    return compare_with(setting, parent, picked)


@task(cache_policy=NO_CACHE)
def record(
    setting: Setting,
    generation: Generation,
    evaluation: dict[str, Any],
    checks: list[Check],
    comparison: Comparison,
    drift: list[Check],
) -> tuple[str, str]:
    """Write the generation to MLflow; its run and its version."""
    return track(setting, generation, evaluation, checks, comparison, drift)


@task(cache_policy=NO_CACHE)
def make_release(setting: Setting, generation: Generation, version: str, evaluation: dict[str, Any], since: int = 0) -> Release:
    """Make the immutable folder that the service answers from."""
    contract, picked = setting.contract, evaluation["picked"]
    rows, sides = labelled(setting.root, contract)
    test, trained, select = (rows[sides == side] for side in ("test", "train", "select"))
    recent = trained[trained[COHORT] == trained[COHORT].max()]
    # Live traffic will be like the newest batch: that is the population to compare it with, where it is large enough.
    population = recent if len(recent) >= NEWEST_ROWS else trained
    unseen = rows[np.isin(sides, ("select", "test"))]
    lately = unseen[unseen[COHORT] == unseen[COHORT].max()]
    unseen = (lately if len(lately) >= NEWEST_ROWS else unseen).tail(HELD_ROWS)
    names = [column.name for column in contract.features]
    probed, following = test.head(PROBES), _following(setting, rows)
    answer = scorer(setting.root, picked).probability
    answers, told, truth = answer(probed), answer(unseen), unseen[contract.target].to_numpy(float)
    distinct = newest(contract, unseen)
    requests = records(probed, contract)
    return write(
        setting.settings.releases,
        version=version,
        graph=(setting.root / "trained" / f"{picked}.onnx").read_bytes(),
        encoder=Encoder.from_dict(json.loads((setting.root / "trained/encoder.json").read_text(encoding="utf-8"))),
        contract=contract,
        threshold=setting.problem.threshold,
        probe=[{"request": request, "probability": float(p)} for request, p in zip(requests, answers, strict=True)],
        # In their order, so that autocorrelated rows can be told from independent ones.
        reference=population[[*names, *(column.name for column in contract.watched)]]
        .assign(**coded(contract, population))
        .sample(min(REFERENCE_ROWS, len(population)), random_state=0)
        .sort_index(),
        facts={
            "family": picked,
            "generation": generation.identity,
            "parent": generation.parent,
            "released": at_release(setting.problem, told[distinct], truth[distinct]),
            "relies_on": relied_on(answer, unseen, names),
            "lock": setting.workspace.lock,
            # The place of the log from which on rows taught it; 0 is every row.
            "since": since,
        },
        interval=fit_interval(answer(select), select[contract.target].to_numpy(float)),
        held=unseen[names].assign(**coded(contract, unseen), probability=told, truth=truth),
        newest=following[names].assign(**coded(contract, following)),
    )


def _following(setting: Setting, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that followed one another: the log's newest that were no fault, or those of the snapshot, `rows`, where these are few.

    The snapshot has only what is labelled: who asks again would seem to ask once.
    """
    live = typed(setting.store.window(newest=MOST_ROWS), setting.contract)
    live = live[~inside(ingest.lesson_of(setting, begun=1).without, live["seq"].to_numpy(int))]
    enough = len(live) >= NEWEST_ROWS and {column.name for column in setting.contract.features} <= set(live.columns)
    return live if enough else rows.tail(MOST_ROWS)


@task(cache_policy=NO_CACHE)
def go_live(setting: Setting, release: Release, decision: Decision) -> None:
    """Route to the release, verify what it answers, move the alias."""
    promote(setting, release, decision)


@task(cache_policy=NO_CACHE)
def put_under_load(setting: Setting, version: str, decision: Decision | Entry) -> dict[str, Any]:
    """Let Locust ask the live service, and set the version back where it does not hold its SLO; the numbers."""
    results = confirmed(setting, version, setting.problem.load)
    keep(setting, version, results)
    for earlier in results[:-1]:
        missed = "; ".join(broken(verdict(earlier, setting.folder.slo)))
        get_run_logger().warning("version %s did not hold its times at first, and was measured once more: %s", version, missed)
    result = results[-1]
    checks = verdict(result, setting.folder.slo)
    create_table_artifact(
        key=page_key(setting.problem.name, "load"),
        table=[{"check": c.name, "verdict": c.verdict, "reason": c.reason} for c in checks]
        + [{"check": k, "reason": str(v)} for k, v in result.as_dict().items()],
        description=f"Load test of version {version}",
    )
    if unmet := broken(checks):
        _not_held(setting, version, decision, unmet)
    mark(setting, version, result, checks)
    return {**result.as_dict(), "answered": sum(each.answered for each in results), "version": version}


def _explain(
    setting: Setting,
    generation: Generation,
    version: str,
    run_id: str,
    decision: Decision,
    checks: list[Check],
    evaluation: dict[str, Any],
    comparison: Comparison,
) -> None:
    """The card and the decision, on the pages of MLflow and Prefect."""
    tracker, base = setting.tracker, setting.settings.mlflow_ui
    text = card(setting.problem, version, generation, decision, checks, evaluation, comparison.errors)
    page = page_of(setting, version, generation, decision, checks, evaluation, comparison)
    tracker.texts(run_id, {"card.md": text, "card.html": page})
    short = summary(setting.problem, version, generation, decision, checks, evaluation)
    tracker.describe(run_id, short)
    tracker.annotate(version, _decided(decision), short)
    create_table_artifact(
        key=page_key(setting.problem.name, "checks"),
        table=[
            {"check": c.name, "verdict": c.verdict, "value": c.value, "limit": c.limit, "rows": c.n, "reason": c.reason} for c in checks
        ],
        description=f"Release checks of version {version}",
    )
    release = setting.releases / version
    links = f"release `{release}` · [service]({setting.settings.service_ui}) · [MLflow run]({tracker.run_url(run_id, base)}) · [version {version}]({tracker.version_url(version, base)})"
    why = "\n".join(f"- {reason}" for reason in decision.reasons)
    create_markdown_artifact(
        key=page_key(setting.problem.name, "decision"),
        markdown=f"## {decision.action}: version {version}\n\nDecision `{decision.id}` · {links}\n\n{why}\n\n{checks_table(checks)}",
        description=f"The gate's decision on version {version}",
    )
    create_link_artifact(
        key=page_key(setting.problem.name, "mlflow"), link=tracker.run_url(run_id, base), link_text=f"Version {version} in MLflow"
    )
