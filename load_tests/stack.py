"""How does Locust run beside a stack? A master with its page, and workers: python -m load_tests.stack master|worker."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ratchet.problem import find_problem
from ratchet.settings import settings
from ratchet.simulation.sample import draw

RECORDS = 500


def main(role: str) -> None:
    """Become Locust. The records are valid ones of the problem; who asks, how often and how long is set on the page."""
    folder = Path("/tmp/locust")
    folder.mkdir(exist_ok=True)
    records = draw(find_problem(settings().problem, settings().problems).contract, RECORDS, seed=0)
    (folder / "records.json").write_text(json.dumps(records), encoding="utf-8")
    os.environ.update(RATCHET_LOAD_RECORDS=str(folder / "records.json"), RATCHET_LOAD_ANSWERED=str(folder / "answered.txt"))
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("users.py"))]
    if role == "worker":
        command += ["--worker", "--master-host", "locust"]
    else:
        command += ["--master", "--host", settings().service_url, "--web-base-path", "/locust"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(sys.argv[1])
