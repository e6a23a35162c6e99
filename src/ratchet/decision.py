"""Decision: what is done about the checks, and why? Policies are pure functions from checks to a decision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ratchet.check import Check
from ratchet.errors import ContractError

Action = Literal[
    "promote",
    "refuse",
    "undecided",
    "retrain",
    "skip",
    "wait",
    "block",
    "buy_labels",
    "ask",
    "superseded",
    "roll_back",
    "pause",
    "resume",
    "trust",
    "drill",
    "challenge",
    "shadow",
]
# The checks that say what a candidate is worth beside the champion, or the rule.
COMPARED = ("non_inferior_to_champion", "beats_rule")
# What the gate says of a candidate.
JUDGEMENTS: tuple[Action, ...] = ("promote", "refuse", "undecided")


@dataclass(frozen=True)
class Decision:
    """An action on a subject, with its reasons and evidence.

    The id hashes what was decided on (action, subject, inputs), not the clock or the wording.
    """

    id: str
    action: Action
    subject: str
    reasons: tuple[str, ...]
    evidence: dict[str, Any]
    by: str = "ratchet"


def digest(value: Any) -> str:
    """A short, stable hash of plain data.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decide(
    action: Action,
    subject: str,
    reasons: Sequence[str],
    inputs: dict[str, Any],
    checks: Sequence[Check] = (),
    by: str = "ratchet",
) -> Decision:
    """A decision whose id is made from its inputs; the checks are kept as evidence."""
    evidence = {"inputs": inputs, "checks": [check.as_dict() for check in checks]}
    identity = digest({"action": action, "subject": subject, "inputs": inputs})
    return Decision(identity, action, subject, tuple(reasons), evidence, by)


def weigh(checks: Sequence[Check], blocking: Sequence[str], advisory: Sequence[str]) -> list[Check]:
    """The checks, made blocking or advisory where problem.yaml says so: by `name`, or by `name:part`, which goes first.

    ContractError where a name is that of no check: a misspelt one would hold nothing.

    >>> told = Check("fairness:sex", "Are they?", "undecided", "few rows", n=20)
    >>> [check.blocking for check in weigh([told], (), ("fairness",))]
    [False]
    """

    known = {name for check in checks for name in (check.name, check.name.split(":")[0])}
    if wrong := sorted({*blocking, *advisory} - known):
        raise ContractError(f"problem.yaml: gate: {wrong[0]!r} is no check; there are {', '.join(sorted(known))}.")
    return [_weighed(check, blocking, advisory) for check in checks]


def told_only(checks: Sequence[Check], advisory: Sequence[str]) -> list[Check]:
    """The checks, of which those that are called so, `name` or `name:part`, are told and nothing more."""
    return [_weighed(check, (), advisory) for check in checks]


def _weighed(check: Check, blocking: Sequence[str], advisory: Sequence[str]) -> Check:
    for name in (check.name, check.name.split(":")[0]):
        if name in blocking:
            return replace(check, blocking=True)
        if name in advisory:
            return replace(check, blocking=False)
    return check


def gate(checks: Sequence[Check], subject: str, inputs: dict[str, Any]) -> Decision:
    """May the candidate go live? Promote only if no blocking check fails or is undecided.

    An undecided one says how many rows it still needs. No check at all is a refusal: a gate that was asked nothing
    must not open.
    """
    blocking = [check for check in checks if check.blocking]
    failed = [check for check in blocking if check.verdict == "fail"]
    unclear = [check for check in blocking if check.verdict == "undecided"]
    if failed:
        return decide("refuse", subject, [f"{c.name}: {c.reason}" for c in failed], inputs, checks)
    if unclear:
        return decide("undecided", subject, [f"{c.name}: {c.reason}{_lacking(c)}" for c in unclear], inputs, checks)
    if not any(check.verdict == "pass" for check in blocking):
        return decide("refuse", subject, ["no blocking check was answered"], inputs, checks)
    passed = [check for check in blocking if check.verdict == "pass"]
    # First what the candidate is worth beside the champion, or, where there is none, beside the rule.
    passed.sort(key=lambda check: check.name not in COMPARED)
    return decide("promote", subject, [f"{check.name}: {check.reason}" for check in passed], inputs, checks)


def _lacking(check: Check) -> str:
    return f"; about {check.needed:,} more rows would tell" if check.needed else ""
