"""How does Locust run beside a stack? A master with its page, and workers: python -m load_tests.stack master|worker."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from ratchet.problem import find_problem
from ratchet.settings import settings
from ratchet.simulation.sample import draw

RECORDS = 500
# Of a container, whose other folders cannot be written to.
PLACE = Path(tempfile.gettempdir()) / "locust"


def main(role: str) -> None:
    """Become Locust. The records are valid ones of the problem, users ask as often as its load test's do; how many, and how long, is set on the page."""
    at = find_problem(settings().problem, settings().problems)
    PLACE.mkdir(exist_ok=True)
    (PLACE / "records.json").write_text(json.dumps(draw(at.contract, RECORDS, seed=0)), encoding="utf-8")
    os.environ.update(
        RATCHET_LOAD_RECORDS=str(PLACE / "records.json"),
        RATCHET_LOAD_ANSWERED=str(PLACE / "answered.txt"),
        RATCHET_LOAD_THROUGHPUT=str(at.problem.load.throughput),
    )
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("users.py"))]
    if role == "worker":
        command += ["--worker", "--master-host", "locust"]
    else:
        command += ["--master", "--host", settings().service_url, "--web-base-path", "/locust"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(sys.argv[1])
