"""How is a value written as text? The same everywhere, so that 7 read as 7.0 is still 7."""

from __future__ import annotations


def as_text(value: object) -> str:
    """A value as text: whole floats without their point, a missing value as `missing`.

    >>> as_text(7.0), as_text("a"), as_text(None)
    ('7', 'a', 'missing')
    """
    if value is None or value != value:
        return "missing"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
