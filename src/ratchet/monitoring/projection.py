"""How do texts and images become numbers of which two samples can be compared?"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

# So many directions of a text's term weights are compared.
DIRECTIONS = 5
# Anybody may send a small file that says it is huge.
MOST_PIXELS = 2**24
IMAGE = ("brightness", "contrast", "sharpness", "colour", "aspect")
logger = logging.getLogger(__name__)
Project = Callable[[pd.Series], dict[str, np.ndarray]]


def text(reference: pd.Series, seed: int = 0) -> Project:
    """What makes numbers of texts: their length, and the main directions of their letter groups in the reference.

    Latent semantic analysis (Deerwester et al., 1990) on groups of three letters, so that no language is assumed. The function
    takes n texts and gives arrays of shape (n,) by name; a missing text is not a number everywhere.
    """
    weights = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), min_df=2, max_features=5000)
    told = reference.dropna().astype(str)
    directions = None
    # Where no group of letters occurs twice, only the length tells texts apart.
    with contextlib.suppress(ValueError):
        known = weights.fit_transform(told)
        if min(known.shape) > 1:
            directions = TruncatedSVD(min(DIRECTIONS, min(known.shape) - 1), random_state=seed).fit(known)

    def project(values: pd.Series) -> dict[str, np.ndarray]:
        missing = values.isna().to_numpy()
        texts = values.fillna("").astype(str)
        made = {"length": texts.str.len().to_numpy(float)}
        if directions is not None:
            places = directions.transform(weights.transform(texts))
            made |= {f"direction {number}": places[:, number - 1] for number in range(1, places.shape[1] + 1)}
        return {name: np.where(missing, np.nan, column) for name, column in made.items()}

    return project


def image(values: pd.Series) -> dict[str, np.ndarray]:
    """Brightness, contrast, sharpness, colourfulness and aspect of n images, each of shape (n,).

    An image is an array (height, width) or (height, width, 3) of 0 to 255, or a file in base 64. Colourfulness is that of Hasler
    and Süsstrunk (2003). What cannot be read, or is of more than 2**24 pixels, is not a number.
    """
    rows = [_features(_pixels(value)) for value in values]
    return dict(zip(IMAGE, np.array(rows, dtype=float).reshape(-1, len(IMAGE)).T, strict=True))


def _pixels(value: Any) -> np.ndarray | None:
    if isinstance(value, str):
        try:
            with Image.open(io.BytesIO(base64.b64decode(value, validate=True))) as told:
                return np.asarray(told.convert("RGB"), dtype=float) if told.width * told.height <= MOST_PIXELS else None
        except Exception as error:
            # Whatever a decoder raises for what somebody sent must not end the look at all the others.
            logger.debug("an image cannot be read: %s", error)
            return None
    if value is None or np.ndim(value) not in (2, 3):
        return None
    return np.asarray(value, dtype=float)


def _features(pixels: np.ndarray | None) -> tuple[float, ...]:
    if pixels is None or min(pixels.shape[:2]) < 2:
        return (np.nan,) * len(IMAGE)
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    steps = [np.diff(grey, axis=axis) for axis in (0, 1)]
    sharpness = float(np.mean([np.square(step).mean() for step in steps]) ** 0.5)
    colour = 0.0
    if pixels.ndim == 3:
        red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
        one, other = red - green, (red + green) / 2 - blue
        colour = float(np.hypot(one.std(), other.std()) + 0.3 * np.hypot(one.mean(), other.mean()))
    return float(grey.mean()), float(grey.std()), sharpness, colour, pixels.shape[1] / pixels.shape[0]
