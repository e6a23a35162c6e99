"""Generation: which model is this, who is its parent, and what was it made from?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ratchet.decision import digest


@dataclass(frozen=True)
class Generation:
    """A model version's origin, by content: hashes of its rows and labels, of the sides they are on, of params.yaml, and of the stages' code.

    `declaration` is the hash of the problem's folder (contract, costs, rule); `commit` names the checkout for people.
    `parent` is the version that was champion when it was trained; None for the first.
    """

    problem: str
    parent: str | None
    snapshot: str
    split: str
    parameters: str
    declaration: str
    code: str
    commit: str
    trigger: str = "person"
    labels: tuple[tuple[str, int], ...] = ()

    @property
    def identity(self) -> str:
        """Training is deterministic: the same snapshot and split, parameters, declaration and code are the same generation."""
        return digest([self.problem, self.snapshot, self.split, self.parameters, self.declaration, self.code])

    def as_tags(self) -> dict[str, str]:
        """The origin as text, for a tracker's tags."""
        fields: dict[str, Any] = asdict(self)
        fields["labels"] = ", ".join(f"{count} {provenance}" for provenance, count in self.labels)
        return {"identity": self.identity} | {key: str(value) for key, value in fields.items() if value}


def labels_of(tags: Mapping[str, str]) -> int:
    """How many labels a generation had, from its tags. KeyError where they do not tell.

    >>> labels_of({"labels": "900 outcome, 120 human"})
    1020
    """
    return sum(int(part.split()[0]) for part in tags["labels"].split(", "))
