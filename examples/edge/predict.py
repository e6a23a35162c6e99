"""Predict on a device that has ONNX Runtime and nothing else of Ratchet: python predict.py MODEL.onnx < records.jsonl

The file that `ratchet compress` leaves holds the network, its encoder, the threshold and the names of its inputs.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime as ort


def main(path: str) -> None:
    """One JSON object a line in, one a line out."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    fields, threshold = json.loads(told["fields"]), float(told["threshold"])
    for number, line in enumerate(sys.stdin, start=1):
        try:
            record = json.loads(line)
            feed = {f["name"]: _tensor(record.get(f["name"]), f["kind"]) for f in fields}
        except (ValueError, AttributeError) as error:
            sys.exit(f"line {number}: {error}. Send one JSON object a line with {', '.join(f['name'] for f in fields)}.")
        probability = float(session.run(None, feed)[0].reshape(-1)[0])
        answer = {"probability": probability, "label": int(probability >= threshold), "model_version": told["version"]}
        print(json.dumps(answer), flush=True)


def _tensor(value: object, kind: str) -> np.ndarray:
    """A value as an input of one row; a missing number is not a number, a missing word is empty."""
    if kind == "number":
        return np.array([np.nan if value is None else value], dtype=np.float64)
    return np.array(["" if value is None else str(value)], dtype=object)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python predict.py MODEL.onnx < records.jsonl")
    main(sys.argv[1])
