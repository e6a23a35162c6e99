"""What does a valid record look like? Records drawn from the contract alone."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from ratchet.contract import PROJECTED, Column, Contract
from ratchet.data.rules import keeps
from ratchet.errors import ContractError
from ratchet.request import records

ROUNDS = 200
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Of an image, in pixels.
SIDE = 8


def draw(contract: Contract, n: int, seed: int) -> list[dict[str, Any]]:
    """Draw n records that keep every range, category and cross-column rule; missing as often as is allowed.

    ContractError where the rules leave next to nothing of the ranges.
    """
    rng = np.random.default_rng(seed)
    found: list[pd.DataFrame] = []
    for _ in range(ROUNDS):
        frame = pd.DataFrame({column.name: _values(column, 2 * n, rng) for column in contract.requested})
        for rule in contract.rules:
            frame = frame[keeps(frame, rule, contract)]
        found.append(frame)
        if sum(map(len, found)) >= n:
            return records(pd.concat(found).head(n), contract)
    raise ContractError(f"{contract.name}: the cross-column rules leave too few of the records that the ranges allow.")


def _text(rng: np.random.Generator) -> str:
    return " ".join("".join(rng.choice(list(LETTERS), rng.integers(2, 9))) for _ in range(rng.integers(2, 12)))


def _image(rng: np.random.Generator) -> str:
    # A portable pixmap: the service draws samples too, and has no library for images.
    pixels = rng.integers(0, 256, 3 * SIDE * SIDE, dtype=np.uint8)
    return base64.b64encode(f"P6 {SIDE} {SIDE} 255\n".encode() + pixels.tobytes()).decode("ascii")


def _values(column: Column, n: int, rng: np.random.Generator) -> pd.Series:
    if column.scale in PROJECTED:
        made = _image if column.scale == "image" else _text
        drawn = pd.Series([made(rng) for _ in range(n)])
    elif column.values is not None:
        drawn = pd.Series(rng.integers(0, len(column.values), n)).map(dict(enumerate(column.values)))
    elif column.scale == "binary":
        drawn = pd.Series(rng.integers(0, 2, n))
    else:
        assert column.range is not None
        low, high = column.range
        whole = column.scale == "discrete"
        drawn = pd.Series(rng.integers(int(low), int(high) + 1, n) if whole else rng.uniform(low, high, n).round(2))
    return drawn.mask(rng.random(n) < column.missing / 2) if column.missing else drawn
