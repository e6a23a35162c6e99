"""FastAPI and ONNX Runtime: a model of the body, the released graph with its encoder, an answer. Nothing is logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import create_model

from ratchet.problem import find_problem
from ratchet.release import read
from ratchet.settings import settings

contract = find_problem(os.environ["RATCHET_PROBLEM"], settings().problems).contract
kinds: dict[str, Any] = {
    column.name: ((str if column.values and isinstance(column.values[0], str) else float) | None, None) for column in contract.features
}
Record = create_model("Record", **kinds)
names = [column.name for column in contract.features]
scorer = read(Path(os.environ["PEER_MODEL"])).scorer
app = FastAPI()


@app.post("/predict", response_model=None)
async def predict(record: Record) -> dict[str, float]:  # type: ignore[valid-type]
    """One record in, its probability out."""
    return {"probability": float(scorer.probability({name: [getattr(record, name)] for name in names})[0])}
