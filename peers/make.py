"""What do the peers serve? The trees as a scikit-learn pipeline, saved as their tutorials save it: python make.py FOLDER PROBLEM RELEASE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
import mlflow.onnx
import mlflow.sklearn
import onnx
import yaml
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from flows.standing import first_rows
from ratchet.problem import find_problem
from ratchet.release import read
from ratchet.settings import ROOT, settings


def main(folder: Path, problem: str, release: Path, rows: int = 20_000, seed: int = 7) -> None:
    """Fit the pipeline and save it for joblib and MLflow, the released graph for MLflow, and a request for each."""
    found = find_problem(problem, settings().problems)
    contract, known = found.contract, first_rows(found, rows, seed)
    names = [column.name for column in contract.features]
    categories = [column.name for column in contract.features if column.values is not None]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"]["trees"]
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    pipeline = Pipeline(
        [
            ("encode", ColumnTransformer([("categories", encode, categories)], remainder="passthrough")),
            ("trees", HistGradientBoostingClassifier(**params, early_stopping=False, random_state=seed)),
        ]
    ).fit(known[names], known[contract.target].astype(int))
    joblib.dump(pipeline, folder / "pipeline.joblib")
    signature = infer_signature(known[names].head(50), pipeline.predict_proba(known[names].head(50)))
    mlflow.sklearn.save_model(
        pipeline, folder / "mlflow-sklearn", pip_requirements=[], signature=signature, pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
    )  # fmt: skip
    ours = read(release)
    bins = ours.encoder.encode(known.head(1), ["bins"])["bins"]
    graph = onnx.load_from_string((release / "model.onnx").read_bytes())
    mlflow.onnx.save_model(graph, folder / "mlflow-onnx", pip_requirements=[], signature=infer_signature(bins))
    record = json.loads(known[names].head(1).to_json(orient="records"))[0]
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "mlflow-sklearn.json").write_text(json.dumps({"dataframe_records": [record]}), encoding="utf-8")
    (folder / "mlflow-onnx.json").write_text(json.dumps({"inputs": bins.tolist()}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
