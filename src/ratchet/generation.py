"""Generation: which model is this, who is its parent, and what was it made from?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ratchet.decision import digest


@dataclass(frozen=True)
class Generation:
    """A model version's origin. `snapshot` is the content hash of its rows and labels, `parameters` of params.yaml.

    `parent` is the version that was champion when it was trained; None for the first.
    """

    problem: str
    parent: str | None
    snapshot: str
    parameters: str
    code: str
    trigger: str = "person"
    labels: tuple[tuple[str, int], ...] = ()

    @property
    def identity(self) -> str:
        """Training is deterministic: the same snapshot, parameters and code are the same generation."""
        return digest([self.problem, self.snapshot, self.parameters, self.code])

    def as_tags(self) -> dict[str, str]:
        """The origin as text, for a tracker's tags."""
        fields: dict[str, Any] = asdict(self)
        fields["labels"] = ", ".join(f"{count} {provenance}" for provenance, count in self.labels)
        fields["commit"] = fields.pop("code")
        return {"identity": self.identity} | {key: str(value) for key, value in fields.items() if value}
