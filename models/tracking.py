"""What does MLflow know of a generation? The only file of the product that imports mlflow."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.artifacts
import mlflow.data
import mlflow.pyfunc
import pandas as pd
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema

from ratchet.contract import Contract
from ratchet.data.encoding import Encoder
from ratchet.errors import StackError
from ratchet.scoring import Scorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHAMPION = "champion"
REQUIREMENTS = [f"{name}=={__import__(name).__version__}" for name in ("mlflow", "numpy", "pandas", "onnxruntime")]


@dataclass(frozen=True)
class Registered:
    """A registered version: its number, the run that made it, its tags and aliases."""

    version: str
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]


class ReleaseModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A version as MLflow loads it: a frame of the contract's features in, probabilities out, by the release's code."""

    def load_context(self, context: Any) -> None:
        """Open the graph and the encoder."""
        encoder = Encoder.from_dict(json.loads(Path(context.artifacts["encoder"]).read_text(encoding="utf-8")))
        self._scorer = Scorer(Path(context.artifacts["graph"]).read_bytes(), encoder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Probability of label 1 for each row."""
        return pd.DataFrame({"probability": self._scorer.probability(model_input)})


class Tracker:
    """One problem's runs and versions on a tracking server."""

    def __init__(self, uri: str, problem: str) -> None:
        # A person sees our progress, not the client's.
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(uri)
        self.problem = problem
        self._client = mlflow.MlflowClient(uri)
        self.experiment_id = self._experiment()

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.problem)
        if found is not None:
            return str(found.experiment_id)
        try:
            # The kind decides which pages MLflow shows first: those of training.
            return str(self._client.create_experiment(self.problem, tags={"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            # Another process made it between the two calls.
            return str(self._client.get_experiment_by_name(self.problem).experiment_id)

    # ---- runs

    def run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """The run of that identity (tag `identity`, and `part` for a nested one), made where it is not there yet."""
        wanted = {"identity": tags["identity"], "part": tags.get("part", "generation")}
        clause = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
        found = self._client.search_runs([self.experiment_id], clause, max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING", name=name)
        else:
            nested = {"mlflow.parentRunId": parent} if parent else {}
            made = self._client.create_run(self.experiment_id, run_name=name, tags={**tags, **wanted, **nested})
            run_id = str(made.info.run_id)
        self.tag(run_id, tags)
        return run_id

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on a run."""
        for key, value in tags.items():
            self._client.set_tag(run_id, key, value)

    def describe(self, run_id: str, markdown: str) -> None:
        """The text at the top of a run's page."""
        self._client.set_tag(run_id, "mlflow.note.content", markdown)

    def parameters(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; a resumed run has them already."""
        there = self._client.get_run(run_id).data.params
        for key, value in params.items():
            if key not in there:
                self._client.log_param(run_id, key, value)

    def metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log numbers; one that stands there already with the same value is not logged again."""
        there = self._client.get_run(run_id).data.metrics
        stamp = int(time.time() * 1000)
        batch = [Metric(key, float(value), stamp, 0) for key, value in metrics.items() if there.get(key) != float(value)]
        self._client.log_batch(run_id, metrics=batch)

    def curves(self, run_id: str, curves: Mapping[str, list[float]]) -> None:
        """Log one value per epoch or iteration."""
        there = self._client.get_run(run_id).data.metrics
        for name, values in curves.items():
            if name not in there:
                batch = [Metric(name, float(value), 0, step) for step, value in enumerate(values, start=1)]
                self._client.log_batch(run_id, metrics=batch)

    def dataset(self, run_id: str, frame: pd.DataFrame, name: str, digest: str, source: str, target: str) -> None:
        """Name the rows that went in, by their content hash."""
        if self._client.get_run(run_id).inputs.dataset_inputs:
            return
        warnings.filterwarnings("ignore", module=r"mlflow\.(data|types)")
        data = mlflow.data.from_pandas(frame, source=source, name=name, digest=digest, targets=target)
        with mlflow.start_run(run_id=run_id):
            mlflow.log_input(data, context="training")
        self._client.update_run(run_id, status="RUNNING")

    def figures(self, run_id: str, figures: Mapping[str, Figure], folder: str = "plots") -> None:
        """Log plots as pictures."""
        for name, figure in figures.items():
            self._client.log_figure(run_id, figure, f"{folder}/{name}.png", save_kwargs={"dpi": 110})

    def texts(self, run_id: str, texts: Mapping[str, str]) -> None:
        """Log documents by path."""
        for path, text in texts.items():
            self._client.log_text(run_id, text, path)

    def file(self, run_id: str, path: Path, folder: str) -> None:
        """Log a file under a folder of the run."""
        self._client.log_artifact(run_id, str(path), folder)

    def keep(self, path: Path) -> str:
        """Hand a file over to the server, for a flow that runs elsewhere; its address."""
        name = f"{self.problem} hand-over"
        found = self._client.get_experiment_by_name(name)
        experiment = str(found.experiment_id) if found is not None else str(self._client.create_experiment(name))
        run_id = str(self._client.create_run(experiment, run_name=path.name).info.run_id)
        self._client.log_artifact(run_id, str(path))
        self.finish(run_id)
        return f"runs:/{run_id}/{path.name}"

    def fetch(self, address: str, folder: Path) -> Path:
        """Bring a file that was handed over into a folder. StackError where MLflow does not give it."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder)))
        except (MlflowException, OSError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise StackError(f"{address} cannot be brought from MLflow: {said}") from error

    def finish(self, run_id: str) -> None:
        """Mark a run as finished."""
        self._client.set_terminated(run_id, "FINISHED")

    # ---- versions

    def versions(self) -> list[Registered]:
        """Every registered version, oldest first."""
        try:
            found = self._client.search_model_versions(f"name = '{self.problem}'")
            aliases = self._client.get_registered_model(self.problem).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return []
        made = [
            Registered(
                str(v.version),
                str(v.run_id),
                dict(v.tags),
                tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(v.version))),
            )
            for v in found
        ]
        return sorted(made, key=lambda item: int(item.version))

    def version_of(self, identity: str) -> Registered | None:
        """The version of that generation identity."""
        return next((item for item in self.versions() if item.tags.get("identity") == identity), None)

    def register(
        self, run_id: str, graph: bytes, encoder: Encoder, contract: Contract, example: pd.DataFrame, tags: Mapping[str, str]
    ) -> str:
        """Log the model with its signature, and register it as a version; the same identity is registered once."""
        there = self.version_of(tags["identity"])
        if there is not None:
            return there.version
        inputs = [
            ColSpec("double" if c.is_numeric or not isinstance((c.values or ("",))[0], str) else "string", c.name, c.missing == 0)
            for c in contract.features
        ]
        signature = ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec("double", "probability")]))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.onnx").write_bytes(graph)
            (Path(folder) / "encoder.json").write_text(json.dumps(encoder.as_dict()), encoding="utf-8")
            with mlflow.start_run(run_id=run_id):
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=ReleaseModel(),
                    artifacts={"graph": f"{folder}/model.onnx", "encoder": f"{folder}/encoder.json"},
                    signature=signature,
                    input_example=example,
                    pip_requirements=REQUIREMENTS,
                )
        try:
            self._client.create_registered_model(self.problem, description=f"Generations of {self.problem}, made by Ratchet.")
        except MlflowException:
            # It is there from the first generation on.
            self._client.get_registered_model(self.problem)
        made = self._client.create_model_version(
            self.problem, info.model_uri, run_id=run_id, tags=dict(tags), model_id=info.model_id, await_creation_for=0
        )
        return str(made.version)

    def annotate(self, version: str, tags: Mapping[str, str], description: str | None = None) -> None:
        """Set tags, and the text of the version's page."""
        for key, value in tags.items():
            self._client.set_model_version_tag(self.problem, version, key, value)
        if description is not None:
            self._client.update_model_version(self.problem, version, description)

    def set_champion(self, version: str) -> None:
        """Move the alias `champion`."""
        self._client.set_registered_model_alias(self.problem, CHAMPION, version)

    def champion(self) -> str | None:
        """The version that the alias `champion` names; None where there is none."""
        return next((item.version for item in self.versions() if CHAMPION in item.aliases), None)

    def run_url(self, run_id: str, base: str) -> str:
        """The page of a run."""
        return f"{base}/#/experiments/{self.experiment_id}/runs/{run_id}"

    def version_url(self, version: str, base: str) -> str:
        """The page of a registered version."""
        return f"{base}/#/models/{self.problem}/versions/{version}"
