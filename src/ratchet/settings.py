"""Where does everything live, on this machine and in this run?"""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ratchet.errors import ContractError

ROOT = Path(__file__).resolve().parents[2]


def code_version() -> str:
    """The commit of this checkout, marked where it has changes of its own."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True)
    # An image is built from a checkout, and told which.
    return done.stdout.strip() if done.returncode == 0 else os.environ.get("RATCHET_COMMIT", "not under version control")


def parameters(root: Path = ROOT) -> dict[str, Any]:
    """params.yaml: what the stages work with, as committed, or as a workspace has it."""
    loaded: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    return loaded


class Settings(BaseSettings):
    """Read from the tools' own environment variables; everything else lies in one state folder."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = Field(default=ROOT / ".ratchet", validation_alias="RATCHET_HOME")
    problems: Path = Field(default=ROOT / "problems", validation_alias="RATCHET_PROBLEMS")
    problem: str = Field(default="credit", validation_alias="RATCHET_PROBLEM")
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    mlflow_tracking_uri: str = Field(default="http://127.0.0.1:5000", validation_alias="MLFLOW_TRACKING_URI")
    prefect_api_url: str = Field(default="http://127.0.0.1:4200/api", validation_alias="PREFECT_API_URL")
    service_url: str = Field(default="http://127.0.0.1:3000", validation_alias="RATCHET_SERVICE_URL")
    dvc_remote: str | None = Field(default=None, validation_alias="RATCHET_DVC_REMOTE")
    spill_folder: Path | None = Field(default=None, validation_alias="RATCHET_SPILL")
    workers: int = Field(default=1, ge=1, validation_alias="RATCHET_WORKERS")
    # Whoever asks the service must show it, where it is set.
    token: SecretStr | None = Field(default=None, min_length=16, validation_alias="RATCHET_TOKEN")
    # What becomes of an answer that the store does not take: into the spill, refused, or answered unlogged and counted.
    log_policy: Literal["spill", "refuse", "unlogged"] = Field(default="spill", validation_alias="RATCHET_LOG_POLICY")
    # How many rows may wait to be answered in a worker, before more are refused.
    max_waiting: int = Field(default=20_000, ge=1, validation_alias="RATCHET_MAX_WAITING")
    # Whether plain predictions skip the layers of the server (serving/protocol.py).
    fast_road: bool = Field(default=True, validation_alias="RATCHET_FAST_ROAD")
    # How thorough the release tests are; as params.yaml says where left out.
    release_tests: Literal["full", "short"] | None = Field(default=None, validation_alias="RATCHET_RELEASE_TESTS")
    request_log: bool = Field(default=True, validation_alias="RATCHET_REQUEST_LOG")
    # Where a person's browser finds the pages; as a rule where the flows find the servers.
    mlflow_page: str | None = Field(default=None, validation_alias="RATCHET_MLFLOW_PAGE")
    prefect_page: str | None = Field(default=None, validation_alias="PREFECT_UI_URL")
    service_page: str | None = Field(default=None, validation_alias="RATCHET_SERVICE_PAGE")

    @field_validator("home", "problems")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        # Processes of the stack are started in another folder than the command that asks them.
        return path.expanduser().resolve()

    @field_validator("token")
    @classmethod
    def _plain(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not (token.get_secret_value().isascii() and token.get_secret_value().isprintable()):
            raise ValueError("a token is made of printable ASCII characters: it travels in a header")
        return token

    @property
    def store_url(self) -> str:
        """SQLAlchemy's address of the ledger and log."""
        return self.database_url or f"sqlite:///{self.home / 'store.db'}"

    @property
    def releases(self) -> Path:
        """The folder of releases, which the service reads."""
        return self.home / "releases"

    @property
    def spill(self) -> Path:
        """The folder into which the service writes while the store is away."""
        return self.spill_folder or self.home / "spill"

    @property
    def remote(self) -> str:
        """DVC's remote: an address such as s3://bucket/folder, or a folder beside the workspaces."""
        return self.dvc_remote or str(self.home / "remote")

    @property
    def authorization(self) -> dict[str, str]:
        """The header that a client of the service sends along."""
        return {"Authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}

    @property
    def prefect_ui(self) -> str:
        """The address of Prefect's pages."""
        return self.prefect_page or self.prefect_api_url.removesuffix("/api")

    @property
    def mlflow_ui(self) -> str:
        """The address of MLflow's pages."""
        return self.mlflow_page or self.mlflow_tracking_uri

    @property
    def service_ui(self) -> str:
        """The address of the service's page."""
        return f"{self.service_page or self.service_url}/docs"

    def tuned(self, problem: str) -> Path:
        """The file of the parameters that tuning a problem found, where it did."""
        return self.home / "tuned" / f"{problem}.yaml"

    def workspace(self, problem: str) -> Path:
        """The Git and DVC repository in which a problem's stages run."""
        return self.home / "workspaces" / problem


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. ContractError names the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise ContractError(f"The variable {first['loc'][0]} is wrong: {first['msg']}.") from error
