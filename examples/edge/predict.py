"""Predict on a device that has ONNX Runtime and nothing else of Ratchet: python predict.py MODEL.onnx < records.jsonl

The file that `ratchet compress` leaves holds the network, its encoder, the threshold and the names of its inputs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnxruntime as ort


def main(path: str) -> None:
    """One JSON object a line in, one a line out."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    fields, threshold = json.loads(told["fields"]), float(told["threshold"])
    known = {field["name"] for field in fields} | set(json.loads(told["ignored"]))
    for number, line in enumerate(sys.stdin, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("this is no JSON object")
            if unknown := set(record) - known:
                raise ValueError(f"{min(unknown)!r} is no field of this model")
            feed = {f["name"]: _tensor(record.get(f["name"]), f) for f in fields}
        except ValueError as error:
            sys.exit(f"line {number}: {error}. Send one JSON object a line with {', '.join(f['name'] for f in fields)}.")
        probability = float(session.run(None, feed)[0].reshape(-1)[0])
        answer = {"probability": probability, "label": int(probability >= threshold), "model_version": told["version"]}
        print(json.dumps(answer), flush=True)


def _tensor(value: object, field: dict[str, Any]) -> np.ndarray:
    """A value as an input of one row; a missing number is not a number, a missing word is empty. ValueError where it may not be."""
    name = field["name"]
    if value is None:
        if field["required"]:
            raise ValueError(f"{name!r} is missing")
        return np.array([np.nan]) if field["kind"] == "number" else np.array([""], dtype=object)
    if isinstance(value, bool) or not isinstance(value, int | float if field["kind"] == "number" else int | float | str):
        raise ValueError(f"{name!r} is {json.dumps(value)}, which is no {field['kind']}")
    if field["kind"] == "number":
        return np.array([value], dtype=np.float64)
    word = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if word not in field["values"]:
        raise ValueError(f"{name!r} is {word!r}; it must be one of {', '.join(field['values'])}")
    return np.array([word], dtype=object)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python predict.py MODEL.onnx < records.jsonl")
    main(sys.argv[1])
