"""Who is answered by the challenger? The same share of the units every time, and always the same ones."""

from __future__ import annotations

from ratchet.lot import lot


def challenged(unit: str, challenger: str, share: float) -> bool:
    """Whether a unit (an entity, or a request without one) belongs to the challenger's share, 0 to 1.

    The hash is salted with the challenger's version, so that one experiment's units are independent of the next one's;
    who belongs to a share belongs to every larger share too.

    >>> [unit for unit in "abcdefgh" if challenged(unit, "7", 0.25)]
    ['f', 'g']
    """
    return lot(f"{challenger}:{unit}") < share
