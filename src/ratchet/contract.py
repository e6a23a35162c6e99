"""What must the data be? The one declaration that everything else is derived from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.errors import ContractError

Scale = Literal["continuous", "discrete", "ordinal", "nominal", "binary", "text", "image"]
Role = Literal["id", "entity", "feature", "time", "target", "protected", "watched"]
NUMERIC: frozenset[str] = frozenset({"continuous", "discrete", "binary"})
CATEGORICAL: frozenset[str] = frozenset({"ordinal", "nominal"})
# What no model here learns from, and what is compared by what can be counted in it.
PROJECTED: frozenset[str] = frozenset({"text", "image"})
Value = str | int
NAME = r"^[a-z][a-z0-9_]*$"
# What a window of the log holds of a prediction beside the request's columns.
LOGGED = (
    "seq", "id", "at", "version", "probability", "label", "truth", "label_at", "label_seq", "provenance", "relabelled", "gold", "audited",
)  # fmt: skip
# What the log, the snapshot and the scores call their own columns.
RESERVED = frozenset([*LOGGED, "outcome", "prediction_id", "cohort", "rule", "logistic", "trees", "network", "reasons", "fate"])
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A frozen object in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Strict):
    """One column: what it means, what it may hold, and who could change it.

    `missing` is the largest share of rows (0 to 1) in which the column may be empty. `values` lists the categories of an ordinal (in order)
    or nominal column. `cause` says why a feature could bring the outcome about; one that matters without a cause is suspected of leaking
    it.
    """

    name: str
    role: Role = "feature"
    scale: Scale
    description: str = ""
    unit: str | None = None
    range: tuple[float, float] | None = None
    values: tuple[Value, ...] | None = None
    missing: float = 0.0
    attacker_can_change: bool = False
    cause: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Column:
        modelled = self.role in ("feature", "protected", "watched")
        if not self.name.isidentifier():
            raise ValueError(f"column {self.name!r}: a name has letters, digits and underscores only")
        # What it is that is to be told may well be called the outcome; the log has no column of the target.
        if self.name in RESERVED and self.role != "id" and (self.name, self.role) != ("outcome", "target"):
            raise ValueError(f"column {self.name}: the name is one of Ratchet's own; choose another")
        if self.values is not None and len({type(value) for value in self.values}) > 1:
            raise ValueError(f"column {self.name}: `values` must all be text or all be whole numbers")
        if modelled and self.scale in CATEGORICAL and not self.values:
            raise ValueError(f"column {self.name}: a {self.scale} column needs its `values`")
        if modelled and self.scale in ("continuous", "discrete") and self.range is None:
            raise ValueError(f"column {self.name}: a {self.scale} column needs its `range`")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"column {self.name}: its range must run from low to high")
        if self.scale in PROJECTED and self.role in ("feature", "protected"):
            raise ValueError(f"column {self.name}: no model learns from a column of this scale yet; it can be watched (role: watched)")
        if not 0.0 <= self.missing <= 1.0:
            raise ValueError(f"column {self.name}: `missing` is a share between 0 and 1")
        return self

    @property
    def may_miss(self) -> bool:
        """Whether a request may leave it out, or send null: no answer hangs on it, or the contract allows it."""
        return self.missing > 0 or self.role in ("protected", "watched")

    @property
    def is_words(self) -> bool:
        """Whether its values are text."""
        return self.scale in PROJECTED or (self.values is not None and isinstance(self.values[0], str))

    @property
    def is_numeric(self) -> bool:
        """Whether its values are numbers to calculate with."""
        return self.scale in NUMERIC

    @property
    def allowed(self) -> str:
        """What a value may be, as a person would say it."""
        if self.values is not None:
            return "one of " + ", ".join(str(value) for value in self.values)
        if self.scale == "binary":
            return "0 or 1"
        if self.range is not None:
            kind = "a whole number" if self.scale == "discrete" else "a number"
            unit = f" {self.unit}" if self.unit else ""
            return f"{kind} from {self.range[0]:,.10g} to {self.range[1]:,.10g}{unit}"
        return "the file of an image in base 64" if self.scale == "image" else "text"

    @property
    def may_be(self) -> str:
        """What a request may hold there, as a person would say it."""
        return self.allowed + (" or null" if self.may_miss else "")


class Rule(Strict):
    """A rule across columns: an expression that is true of every valid row (see data/rules.py for what it may be made of)."""

    name: str
    expression: str
    reason: str


class Contract(Strict):
    """The columns of a problem's data and the rules that they keep.

    `max_invalid_share`: a batch with a larger share of rows that break a rule is refused whole.
    """

    name: str = Field(pattern=NAME)
    version: int = 1
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    max_invalid_share: float = 0.5

    @model_validator(mode="after")
    def _roles(self) -> Contract:
        names = [column.name for column in self.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"column {twice[0]} is declared twice")
        for role in ("id", "target"):
            if sum(column.role == role for column in self.columns) != 1:
                raise ValueError(f"exactly one column must have the role `{role}`")
        if not self.features:
            raise ValueError("at least one column must have the role `feature`")
        return self

    def _named(self, role: Role) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role == role)

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that a model sees, in their order."""
        return self._named("feature")

    @property
    def protected(self) -> tuple[Column, ...]:
        """The columns that name protected groups; no model sees them."""
        return self._named("protected")

    @property
    def watched(self) -> tuple[Column, ...]:
        """The columns that are logged so that their drift is seen; no model sees them."""
        return self._named("watched")

    @property
    def requested(self) -> tuple[Column, ...]:
        """The columns of a prediction request: the features, then the protected groups, then what is watched besides."""
        return self.features + self.protected + self.watched

    @property
    def id(self) -> str:
        """The name of the column that identifies a row."""
        return self._named("id")[0].name

    @property
    def target(self) -> str:
        """The name of the column to predict: 0 or 1."""
        return self._named("target")[0].name

    @property
    def entity(self) -> str:
        """The column by which rows belong together; the row's own id where none is declared."""
        entities = self._named("entity")
        return entities[0].name if entities else self.id

    @property
    def time(self) -> str | None:
        """The name of the column that tells when a row came to be."""
        times = self._named("time")
        return times[0].name if times else None

    def as_told_by(self, newer: Contract) -> Contract:
        """The columns of this contract, what they may hold and the rules as a newer one says; and what only the newer one watches.

        A column of another role or scale, or that the newer one lacks, stays as it is: a model has learnt from it so.
        """
        told = {column.name: column for column in newer.columns}
        kept = [new if (new := told.get(old.name, old)).role == old.role and new.scale == old.scale else old for old in self.columns]
        added = [column for column in newer.watched if column.name not in {old.name for old in self.columns}]
        return newer.model_copy(update={"columns": (*kept, *added)})

    def column(self, name: str) -> Column:
        """The column of that name. KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a frozen, strict object. ContractError says file, key and reason."""
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ContractError(f"{path} does not exist: a problem needs this file.") from error
    except yaml.YAMLError as error:
        raise ContractError(f"{path} is not valid YAML: {error}") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise ContractError(f"{path}: {where}: {message}.") from error


def load_contract(path: Path) -> Contract:
    """Read contract.yaml. ContractError where it is missing or wrong."""
    return read_yaml(path, Contract)
