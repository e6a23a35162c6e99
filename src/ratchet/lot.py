"""Where does a name fall, by lot? At the same place for everybody who asks, whatever else is drawn."""

from __future__ import annotations

import hashlib


def lot(name: str) -> float:
    """A place from 0 to below 1, by the hash of a name (BLAKE2b).

    >>> round(lot("p1"), 4), round(lot("p2"), 4)
    (0.9066, 0.2999)
    """
    # Of 64 bits a double keeps 53; the lowest are dropped, so that none is rounded up to 1.
    return (int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 11) / 2**53
