"""What a crash leaves behind of a promotion is healed: carried out, verified, tested, or set back."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from prefect.logging import disable_run_logger

from flows import lifecycle, person, promotion, retrain
from flows.population import answered
from flows.promotion import carry_out, cut_short, last_word, reconcile, undone
from flows.setting import Setting
from ratchet.check import Check
from ratchet.decision import JUDGEMENTS, decide
from ratchet.errors import ReleaseError
from ratchet.generation import Generation
from ratchet.settings import Settings


class Tracker:
    """MLflow, as far as a promotion asks it."""

    def __init__(self):
        self.alias = None
        self.tags = {}

    def champion(self):
        return self.alias

    def set_champion(self, version):
        self.alias = version

    def annotate(self, version, tags, short=None):
        self.tags.setdefault(version, {}).update(tags)

    def versions(self):
        return [SimpleNamespace(version=version, run_id="a run", tags=tags) for version, tags in self.tags.items()]


@pytest.fixture
def setting(standing, credit, tmp_path, monkeypatch):
    """A released version 2 that nobody routes to yet, and a service that answers as it is asked to."""
    shutil.copytree(standing, tmp_path / "home", ignore=shutil.ignore_patterns("store.db*"))
    made = Setting(credit, Settings(RATCHET_HOME=tmp_path / "home", DATABASE_URL=None))
    made.__dict__["tracker"] = Tracker()
    made.__dict__["verified"] = []
    monkeypatch.setattr(promotion, "verify", lambda _, release: made.__dict__["verified"].append(release.version))
    return made


def promoted(setting, version="2"):
    decision = decide("promote", f"version {version}", ["better"], {"generation": version, "trigger": "decision d1"})
    setting.store.record(decision)
    return decision


def test_a_promotion_that_was_decided_but_never_routed_is_carried_out_once(setting):
    assert (carry_out(setting), reconcile(setting)) == ("", None)
    decision = promoted(setting)
    assert cut_short(setting, "2")
    assert f"version 2 answers now, as decision {decision.id} said" in carry_out(setting)
    assert carry_out(setting) == ""
    assert reconcile(setting) == "2"
    assert [(route.champion, route.verified, route.decision) for route in setting.store.routes()][-1] == ("2", True, decision.id)
    assert setting.verified == ["2"]
    assert setting.tracker.alias == "2"


@pytest.mark.parametrize("since", ["no release yet", "set back"])
def test_a_promotion_is_not_carried_out_that_was_undone_or_has_no_release_yet(setting, since):
    promoted(setting, "9" if since == "no release yet" else "2")
    if since == "set back":
        setting.store.record(decide("roll_back", "version 2", ["slow"], {"back_to": "1"}))
        assert last_word(setting, "2").action == "roll_back"
    assert (carry_out(setting), reconcile(setting)) == ("", None)
    assert setting.store.routes() == []


def spoilt(setting, version):
    """A release that does not answer as it was probed."""
    path = setting.settings.releases / "credit" / version
    file = next(path.glob("*.onnx"))
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-100])


def test_a_promised_version_that_is_damaged_is_given_up_and_blocks_nothing(setting):
    promoted(setting, "1")
    carry_out(setting)
    promoted(setting, "2")
    spoilt(setting, "2")
    assert "version 2, which was to answer by decision" in carry_out(setting)
    assert last_word(setting, "2").action == "roll_back"
    assert (carry_out(setting), reconcile(setting)) == ("", "1")


def test_a_damaged_version_that_was_routed_to_is_set_back(setting):
    promoted(setting, "1")
    carry_out(setting)
    setting.store.set_route("2", promoted(setting, "2").id)
    spoilt(setting, "2")
    assert carry_out(setting) == ""
    assert reconcile(setting) == "1"
    assert last_word(setting, "2").evidence["inputs"]["failed"] == "2"


def test_a_roll_back_that_was_decided_but_never_routed_is_carried_out(setting):
    for version in ("1", "2"):
        promoted(setting, version)
        carry_out(setting)
    setting.store.record(decide("roll_back", "version 2", ["slow"], {"failed": "2", "back_to": "1"}))
    assert carry_out(setting).startswith("version 1 answers now")
    assert (carry_out(setting), reconcile(setting), setting.tracker.alias) == ("", "1", "1")
    assert setting.verified == ["1", "2", "1"]


def test_a_version_that_cannot_be_read_is_set_back_and_what_answers_then_is_verified(setting):
    promoted(setting)
    carry_out(setting)
    decision = promoted(setting, "9")
    setting.store.set_route("9", decision.id)
    assert reconcile(setting) == "2"
    assert setting.verified == ["2", "2"]
    undone = setting.store.decisions("roll_back")[0]
    assert (undone.subject, undone.evidence["inputs"]["failed"], undone.evidence["inputs"]["back_to"]) == ("version 9", "9", "2")
    assert (setting.store.route().champion, setting.store.route().verified) == ("2", True)


def test_where_there_is_none_to_go_back_to_it_is_told(setting):
    setting.store.set_route("9", promoted(setting, "9").id)
    with pytest.raises(ReleaseError, match="9"):
        reconcile(setting)


def test_a_retraining_that_was_cut_short_is_not_made_again_but_finished(setting, monkeypatch):
    answer = promoted(setting)
    tested = []
    monkeypatch.setattr(lifecycle, "untested", lambda _, version: not tested)
    monkeypatch.setattr(lifecycle.put_under_load, "with_options", lambda **_: lambda *told: tested.append(told[1]) or {"requests": 900})
    with disable_run_logger():
        assert retrain.taken_up(setting, answer)
    assert setting.store.route().champion == "2"
    assert tested == ["2"]
    assert setting.tracker.tags["2"]["decision"] == "promote"
    # Once more, and nothing is left to do.
    assert retrain.taken_up(setting, answer)
    assert tested == ["2"]
    assert setting.verified == ["2"]


def test_a_retraining_that_was_cut_short_before_its_release_is_made_again(setting):
    assert not retrain.taken_up(setting, promoted(setting, "9"))


def test_what_a_person_decided_and_was_killed_before_it_was_routed_is_carried_out(setting, monkeypatch):
    for version in ("1", "2"):
        setting.store.set_route(version, "d", verified=True)
    monkeypatch.setattr(person, "go_live", lambda *_: None)
    person.rollback(setting, "it is unequal")
    assert undone(setting)[1] == "1"
    setting.store.set_route("1", "d", verified=True)
    assert undone(setting) is None
    person.promote(setting, "2", "it was not")
    assert undone(setting)[1] == "2"
    assert "version 2 answers now" in carry_out(setting)
    assert undone(setting) is None


@pytest.fixture
def judging(setting, monkeypatch):
    """A generation that was trained already and is only to be judged, as version 2; asked for by a decision, and before by a person."""
    asked = {"snapshot": "rows", "split": "sides", "parameters": "p", "declaration": "d", "code": "c", "commit": "c"}
    generation = Generation("credit", None, **asked, trigger="decision d1")
    monkeypatch.setattr(lifecycle, "describe", lambda *_: generation)
    monkeypatch.setattr(lifecycle, "release_checks", lambda *_: [Check("cost", "Is it?", "fail", "dear")])
    monkeypatch.setattr(lifecycle, "what_it_cost", lambda *_: None)
    monkeypatch.setattr(lifecycle, "_explain", lambda *_: None)
    monkeypatch.setattr(lifecycle, "test", lambda *_: None)
    monkeypatch.setattr(lifecycle.compare, "with_options", lambda **_: lambda *told: SimpleNamespace(write=lambda root: None))
    monkeypatch.setattr(lifecycle.record, "with_options", lambda **_: lambda *told: ("a run", "2"))
    setting.tracker.__dict__ |= {
        "version_of": lambda identity: SimpleNamespace(tags={"trigger": "a person"}),
        "tag": lambda *_: None,
        "finish": lambda *_: None,
    }
    (setting.root / "metrics").mkdir(parents=True, exist_ok=True)
    for name in ("evaluation", "validation"):
        (setting.root / "metrics" / f"{name}.json").write_text('{"picked": "trees"}', encoding="utf-8")

    def judge(release):
        monkeypatch.setattr(lifecycle.make_release, "with_options", lambda **_: release)
        with disable_run_logger():
            return lifecycle._decide(setting, None, "decision d1", [], (0, "every row"))

    return judge


def test_no_decision_stands_in_the_ledger_before_its_release_is_there(setting, judging):
    """A run that is killed in between is asked for again: what is decided counts as answered."""

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judging(killed)
    assert not setting.store.decisions(*JUDGEMENTS)
    assert answered(setting) == set()


def test_a_decision_whose_rows_make_a_generation_that_was_judged_before_is_answered(setting, judging):
    assert judging(lambda *_: None)["action"] == "refuse"
    judged = setting.store.decisions(*JUDGEMENTS)
    assert [entry.evidence["inputs"]["trigger"] for entry in judged] == ["a person"]
    assert answered(setting) == {"a person", "d1"}
    # Once more, and nothing is new.
    judging(lambda *_: None)
    assert len(setting.store.decisions(*JUDGEMENTS, "superseded")) == 2
