"""BentoML as its tutorial has it: a class, a method, a scikit-learn pipeline."""

from __future__ import annotations

import os
from typing import Any

import bentoml
import joblib
import pandas as pd


@bentoml.service
class Tutorial:
    """The pipeline behind one method."""

    def __init__(self) -> None:
        self.pipeline = joblib.load(os.environ["PEER_MODEL"])

    @bentoml.api
    def predict(self, record: dict[str, Any]) -> float:
        """One record in, its probability out."""
        return float(self.pipeline.predict_proba(pd.DataFrame([record]))[0, 1])
