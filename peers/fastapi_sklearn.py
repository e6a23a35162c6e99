"""FastAPI and a scikit-learn pipeline, as FastAPI's tutorial has it: a model of the body, a function that answers."""

from __future__ import annotations

import os
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import create_model

from ratchet.problem import find_problem
from ratchet.settings import settings

contract = find_problem(os.environ["RATCHET_PROBLEM"], settings().problems).contract
kinds: dict[str, Any] = {
    column.name: ((str if column.values and isinstance(column.values[0], str) else float) | None, None) for column in contract.features
}
Record = create_model("Record", **kinds)
pipeline = joblib.load(os.environ["PEER_MODEL"])
app = FastAPI()


@app.post("/predict")
def predict(record: Record) -> dict[str, float]:  # type: ignore[valid-type]
    """One record in, its probability out."""
    return {"probability": float(pipeline.predict_proba(pd.DataFrame([record.model_dump()]))[0, 1])}
