"""The loan applications with what people write: a note, a photographed letter, and with what it was written. No model sees them."""

from __future__ import annotations

from pathlib import Path

import yaml

COLUMNS = [
    {"name": "note", "role": "watched", "scale": "text", "description": "What the applicant wrote"},
    {"name": "photo", "role": "watched", "scale": "image", "description": "The letter, as it was photographed"},
    {"name": "browser", "role": "watched", "scale": "nominal", "values": ["fox", "eagle"], "description": "With what it was written"},
]
# The source of the copied problem: the world's rows with what people write, and light or dark photographs.
SOURCE = """

import base64
import io

import numpy as np
from PIL import Image

WORDS = {False: "a car for my way to work", True: "ein neues Dach fuer unser Haus"}


def _photo(rng, drifted):
    file = io.BytesIO()
    Image.fromarray((rng.integers(0, 128, (6, 6, 3)) + 100 * drifted).astype("uint8")).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


class Written(Simulated):
    others = False

    def _draw(self, rows, knobs):
        self._columns = [name for name in self._columns if name not in ("note", "photo", "browser")]
        frame = super()._draw(rows, knobs)
        rng = np.random.default_rng([self._seed, self._next])
        words = WORDS[self.others].split()
        return frame.assign(
            note=[" ".join(rng.choice(words, 5)) for _ in range(rows)],
            photo=[_photo(rng, self.others) for _ in range(rows)],
            browser=rng.choice(["fox", "eagle"], rows),
        )


def open_source(source, seed, problem, contract):
    return Written(seed, problem, contract)
"""


def written(folder: Path) -> None:
    """Add the three columns to a copy of the problem, to its contract and to its source."""
    contract = yaml.safe_load((folder / "contract.yaml").read_text(encoding="utf-8"))
    contract["columns"] += COLUMNS
    (folder / "contract.yaml").write_text(yaml.safe_dump(contract, sort_keys=False), encoding="utf-8")
    with (folder / "source.py").open("a", encoding="utf-8") as source:
        source.write(SOURCE)
