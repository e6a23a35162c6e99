"""Which passwords does docker-compose.yml need, and which of them are missing?"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ratchet.errors import StackError
from ratchet.settings import ROOT

EXAMPLE, ENV = ROOT / ".env.example", ROOT / ".env"


def parse(text: str) -> dict[str, str]:
    """NAME=value lines, as Compose reads them; comments and empty lines are passed over.

    >>> parse("# a comment\\nA=1 # mine\\nB=\\nC='x#y'\\n")
    {'A': '1', 'B': '', 'C': 'x#y'}
    """
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#") and "=" in line]
    return {name.strip(): value.partition(" #")[0].strip().strip("'\"") for name, _, value in pairs}


def needed(example: Path = EXAMPLE) -> list[str]:
    """The passwords that have no default."""
    return [name for name, value in parse(example.read_text(encoding="utf-8")).items() if not value]


def missing(env: Path | None = None, example: Path = EXAMPLE) -> list[str]:
    """The passwords that neither the environment nor .env has."""
    env = env or ENV
    there = parse(env.read_text(encoding="utf-8")) if env.exists() else {}
    return [name for name in needed(example) if not (os.environ.get(name) or there.get(name))]


def write(env: Path = ENV, example: Path = EXAMPLE) -> list[str]:
    """Write .env with a password for each that is missing there; their names. What stands there is kept.

    A password that is used already must stay: the databases know it. StackError where the file cannot be written.
    """
    text = (env if env.exists() else example).read_text(encoding="utf-8")
    there = parse(text)
    made = [name for name in needed(example) if not there.get(name)]
    lines = text.splitlines()
    for name in made:
        # Letters, digits, - and _ alone: safe in an address, a shell and a YAML file.
        line = f"{name}={secrets.token_urlsafe(24)}"
        place = next((i for i, old in enumerate(lines) if old.strip() == f"{name}="), None)
        if place is None:
            lines.append(line)
        else:
            lines[place] = line
    if not made and env.exists():
        return []
    draft = env.with_name(f".{env.name}.draft")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(draft, env)
    except OSError as error:
        raise StackError(f"{env} cannot be written: {error.strerror}.") from error
    return made
