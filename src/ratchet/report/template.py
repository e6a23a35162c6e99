"""How is a page made of a template? Everything that is put in is escaped, and nothing may be missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill(template: str, filters: dict[str, Callable[..., Any]], **facts: Any) -> str:
    """The text of a template of this folder, filled in with what is told."""
    environment = Environment(
        loader=PackageLoader("ratchet.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    return environment.get_template(template).render(**facts)
