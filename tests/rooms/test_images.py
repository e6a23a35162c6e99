"""The service's image is small: what it installs is what the service imports, and neither torch nor MLflow is among it."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import re
import subprocess
import sys

from packaging.requirements import Requirement

from ratchet.settings import ROOT


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[Requirement]) -> set[str]:
    """The distributions that come with those, as installed here."""
    found: set[tuple[str, str]] = set()
    todo = [(canonical(r.name), extra) for r in requirements for extra in ("", *r.extras)]
    while todo:
        key = todo.pop()
        if key in found:
            continue
        found.add(key)
        for text in metadata.requires(key[0]) or []:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": key[1]}):
                todo += [(canonical(wanted.name), extra) for extra in ("", *wanted.extras)]
    return {name for name, _ in found}


LISTED = [
    Requirement(line) for line in (ROOT / "requirements-service.in").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
]
# A process in which only the listed distributions, and what comes with them, can be imported.
CONFINED = """
import importlib.abc, json, sys
hidden = set(json.loads(sys.argv[1]))
class Confined(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Confined())
import serving.service, psycopg, alembic.command
print("imported")
"""


def test_the_service_starts_from_what_is_in_its_image():
    installed = closure(LISTED)
    by_module = metadata.packages_distributions()
    hidden = [module for module, dists in by_module.items() if not {canonical(d) for d in dists} & (installed | {"ratchet"})]
    assert {"torch", "mlflow", "prefect", "dvc", "sklearn", "great_expectations"} <= set(hidden)
    told = subprocess.run([sys.executable, "-c", CONFINED, json.dumps(hidden)], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout.strip().endswith("imported"), told.stderr[-2000:]


def test_the_lock_holds_everything_that_the_service_needs():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for requirement in LISTED:
        assert re.search(rf"(?m)^{re.escape(requirement.name)}(\[.*\])?==", lock), requirement.name
