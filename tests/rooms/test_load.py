"""The load test: shapes, the server's own histogram, and what slo.yaml asks for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.logging import disable_run_logger

from flows import lifecycle
from flows.stress import broken, confirmed, untested
from load_tests.run import LoadResult, verdict
from load_tests.server import Histogram
from ratchet.decision import decide
from ratchet.errors import ContractError
from ratchet.problem import Folder, Load, Slo, changed, find_problem

GOOD = LoadResult(1000, 0, 6.0, 5.0, 20.0, 400.0, 3.0, 15.0, 900, 900, Path("load.html"))
SLO = Slo(average_ms=10, p99_ms=50, max_failure_share=0.01, min_rps=100)


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({}, None),
        ({"failures": 11}, "load:failures"),
        ({"server_average_ms": 10.1}, "load:average"),
        ({"server_p99_ms": 51.0}, "load:p99"),
        ({"rps": 99.0}, "load:rps"),
        ({"server_p99_ms": float("nan")}, "load:p99"),
        # What Locust's own event loop adds is shown, and does not count.
        ({"average_ms": 500.0, "p99_ms": 900.0}, None),
    ],
)
def test_each_line_of_the_slo_is_asked_of_the_server(change, fails):
    checks = verdict(replace(GOOD, **change), SLO)
    assert [check.name for check in checks if check.verdict == "fail"] == ([fails] if fails else [])
    assert all(check.blocking for check in checks)
    assert not any(check.blocking for check in verdict(GOOD, SLO.model_copy(update={"gates": False})))


def test_below_a_hundred_requests_nothing_is_said_of_the_slowest_hundredth():
    told = {check.name: check.verdict for check in verdict(replace(GOOD, requests=99), SLO)}
    assert told == {"load:failures": "pass", "load:average": "pass", "load:p99": "undecided", "load:rps": "pass"}


def test_a_service_that_hardly_answers_at_all_is_not_let_off():
    """The worse it is, the fewer requests there are: that must not make it undecided."""
    slow = replace(GOOD, requests=85, rps=10.6, server_average_ms=1500.0, server_p99_ms=4000.0)
    assert [said.partition(": ")[0] for said in broken(verdict(slow, SLO))] == ["load:average", "load:rps"]
    nan = float("nan")
    dead = replace(GOOD, requests=0, rps=0.0, server_average_ms=nan, server_p99_ms=nan)
    for slo in (SLO, SLO.model_copy(update={"min_rps": 0.0})):
        assert {check.verdict for check in verdict(dead, slo)} == {"fail"}


@pytest.mark.parametrize(
    ("results", "asked", "unmet"),
    [
        ([GOOD], 1, []),
        ([replace(GOOD, server_p99_ms=51), GOOD], 2, []),
        ([replace(GOOD, server_p99_ms=51), replace(GOOD, server_p99_ms=52)], 2, ["load:p99"]),
        ([replace(GOOD, server_p99_ms=51, failures=100), GOOD], 1, ["load:failures", "load:p99"]),
    ],
)
def test_times_alone_are_measured_once_more_before_a_version_is_set_back(results, asked, unmet, monkeypatch):
    left = list(results)

    monkeypatch.setattr("flows.stress.measure", lambda *_: left.pop(0))
    told = confirmed(SimpleNamespace(folder=SimpleNamespace(slo=SLO)), "2", Load())
    assert told == results[:asked]
    assert [said.partition(": ")[0] for said in broken(verdict(told[-1], SLO))] == unmet


def test_a_run_that_is_cut_short_before_the_version_is_set_back_has_not_tested_it(monkeypatch, tmp_path):
    """The tags by which a version counts as tested are written when all that follows from the measurement is done."""
    slow = replace(GOOD, server_p99_ms=51, report=tmp_path / "load.html")
    done = []
    tracker = SimpleNamespace(
        metrics=lambda _, told: done.append(told["load_server_p99_ms"]),
        file=lambda *_: done.append("report"),
        annotate=lambda _, tags: done.append(tags),
    )
    setting = SimpleNamespace(
        problem=SimpleNamespace(name="credit", load=Load(seconds=2)),
        folder=SimpleNamespace(slo=SLO),
        tracker=tracker,
        store=SimpleNamespace(route=lambda: SimpleNamespace(champion="2")),
    )

    def version(tags):
        told = (("1", {"load_requests": "9"}), ("2", tags))
        tracker.versions = lambda: [SimpleNamespace(version=number, run_id="a run", tags=each) for number, each in told]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.stress.measure", lambda *_: slow)
    monkeypatch.setattr(lifecycle, "create_table_artifact", lambda **_: None)
    monkeypatch.setattr(lifecycle, "_not_held", killed)
    promoted = decide("promote", "version 2", ["better"], {})
    with disable_run_logger():
        version({})
        with pytest.raises(KeyboardInterrupt):
            lifecycle.put_under_load.fn(setting, "2", promoted)
        assert done == [51, 51, "report"]
        monkeypatch.setattr(lifecycle, "_not_held", lambda *_: done.append("set back"))
        load = lifecycle.put_under_load.fn(setting, "2", promoted)
    assert load["answered"] == 2 * GOOD.answered
    assert done[3:-1] == [51, 51, "report", "set back"]
    assert done[-1]["load_p99"] == "fail"
    version({})
    assert untested(setting, "2")
    assert not untested(setting, "1")
    version(done[-1])
    assert not untested(setting, "2")
    version({})
    setting.problem.load = Load(seconds=0)
    assert not untested(setting, "2")


def test_the_servers_histogram_is_read_as_prometheus_reads_it():
    inf = float("inf")
    before = Histogram(((0.001, 10.0), (0.005, 10.0), (inf, 10.0)), 10.0, 0.005)
    after = Histogram(((0.001, 60.0), (0.005, 108.0), (inf, 110.0)), 110.0, 0.255)
    told = after.since(before)
    assert told.count == 100
    assert told.average_ms == pytest.approx(2.5)
    assert told.quantile_ms(0.25) == pytest.approx(0.5)
    assert told.quantile_ms(0.74) == pytest.approx(3.0)
    # Beyond the last bound it is not known how far.
    assert told.quantile_ms(0.99) == pytest.approx(5.0)


def test_users_come_and_go_as_the_shape_says():
    # Locust patches this process' sockets when it is imported: in a process of its own, then.
    code = (
        "from load_tests.shapes import users_at\n"
        "print([users_at('ramp', 100, 10, m) for m in (0, 5, 9.9, 10)], [users_at('spike', 100, 9, m) for m in (1, 4, 8, 9)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 50, 99, None] [10, 100, 10, None]"


def test_beside_a_stack_users_find_all_they_need_in_the_environment(tmp_path):
    # What execv would start as Locust stays here, and loads the users as Locust does.
    code = (
        "import os\n"
        "from load_tests import stack\n"
        f"stack.PLACE = stack.Path({str(tmp_path)!r}) / 'locust'\n"
        "os.execv = lambda program, command: print(*command[3:])\n"
        "stack.main('master')\n"
        "from load_tests.users import CATEGORIES, RECORDS, Applicant\n"
        "print(len(RECORDS), sorted(CATEGORIES)[0], Applicant.wait_time is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"RATCHET_PROBLEM": "credit"}
    )
    started, told = done.stdout.splitlines()
    assert started.startswith("-f ")
    assert "--master" in started
    assert told == "500 age_group True"


def test_a_load_test_that_cannot_be_is_a_sentence():
    assert changed(Load(), users=5, seconds=None) == Load(users=5)
    with pytest.raises(ContractError, match="--shape: Input should be 'constant', 'ramp' or 'spike'"):
        changed(Load(), shape="square")
    with pytest.raises(ContractError, match="--throughput: Input should be greater than 0"):
        changed(Load(), throughput=0)


def test_every_problem_has_its_slo(credit, tmp_path):
    for name in ("credit", "credit_card"):
        assert find_problem(name, credit.path.parent).slo.p99_ms == 500
    for part in ("problem.yaml", "contract.yaml"):
        (tmp_path / part).write_text((credit.path / part).read_text(encoding="utf-8"), encoding="utf-8")
    assert Folder(tmp_path).slo == Slo()
    (tmp_path / "slo.yaml").write_text("p99: 5\n", encoding="utf-8")
    with pytest.raises(ContractError, match=r"slo.yaml: p99: Extra inputs are not permitted"):
        _ = Folder(tmp_path).slo
