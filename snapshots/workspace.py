"""Where do a problem's stages run, and what has DVC recorded of them?

A workspace is a Git and DVC repository of its own, made from the committed dvc.yaml and params.yaml.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ratchet.draft import drafted
from ratchet.errors import StackError

IDENTITY = {
    f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "ratchet"), ("EMAIL", "ratchet@localhost"))
}
# Seconds after which an object store that does not answer is given up.
PATIENCE = {"connect_timeout": 5, "read_timeout": 20}


def quiet_environment(home: Path) -> dict[str, str]:
    """The variables that keep DVC and Git inside `home`: no analytics, no user configuration, no network."""
    return {
        "DVC_NO_ANALYTICS": "1",
        "DVC_STUDIO_OFFLINE": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc" / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc" / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc" / "system"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


@dataclass(frozen=True)
class Workspace:
    """A folder with a problem's stages, and the home in which its cache settings and remote lie."""

    path: Path
    home: Path

    @property
    def definition(self) -> dict[str, Any]:
        """dvc.yaml as plain data."""
        loaded: dict[str, Any] = yaml.safe_load((self.path / "dvc.yaml").read_text(encoding="utf-8"))
        return loaded

    @property
    def parameters(self) -> dict[str, Any]:
        """params.yaml as plain data."""
        loaded: dict[str, Any] = yaml.safe_load((self.path / "params.yaml").read_text(encoding="utf-8"))
        return loaded

    @property
    def lock(self) -> str:
        """dvc.lock as text: the content hash of every input, parameter and output."""
        return (self.path / "dvc.lock").read_text(encoding="utf-8")

    def point(self, remote: str) -> None:
        """Let DVC push to, and pull from, that address. An object store's keys and endpoint stay in the environment."""
        with _open(self) as repo:
            told = repo.config
            if told["core"].get("remote") == "store" and told["remote"].get("store", {}).get("url") == remote:
                return
            with repo.config.edit("repo") as config:
                config["core"]["remote"] = "store"
                config["remote"] = {"store": {"url": remote, **(PATIENCE if remote.startswith("s3://") else {})}}

    def digest(self, path: str, of: str = "outs") -> str:
        """The content hash of a stage's output, or with `of="deps"` of an input. KeyError where there is none."""
        return digest(self.lock, path, of)


def digest(lock: str, path: str, of: str = "outs") -> str:
    """The content hash (md5, as DVC stores it) of an output, or with `of="deps"` of an input, in a dvc.lock's text."""
    for stage in (yaml.safe_load(lock).get("stages") or {}).values():
        for item in stage.get(of, []):
            if item["path"] == path:
                return str(item["md5"])
    raise KeyError(path)


def parameters(lock: str, stage: str) -> dict[str, Any]:
    """What a stage took from params.yaml, in a dvc.lock's text. KeyError where it took nothing."""
    found: dict[str, Any] = yaml.safe_load(lock)["stages"][stage]["params"]["params.yaml"]
    return found


def create(path: Path, home: Path, files: Mapping[str, str], problem: Path | None, code: str = "", remote: str | None = None) -> Workspace:
    """Make a problem's workspace, or bring an existing one's definition up to date.

    `files` are the texts of those at its root by name, the YAML and Python files of `problem` to its folder `problem`, and `code`, which
    names the code of the stages, to code.txt: each is an input that DVC watches. `remote` is DVC's address of the remote, a folder beside
    the workspaces where left out: nothing is written outside `home` then.
    """
    os.environ.update(quiet_environment(home))
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    if problem is not None:
        shutil.rmtree(path / "problem", ignore_errors=True)
        (path / "problem").mkdir()
        for source in sorted(problem.iterdir()):
            if source.suffix in (".yaml", ".yml", ".py"):
                shutil.copyfile(source, path / "problem" / source.name)
    if code:
        (path / "code.txt").write_text(code + "\n", encoding="utf-8")
    workspace = Workspace(path, home)
    if not (path / ".git").is_dir():
        _git(workspace, "init", "-q", "-b", "main", "--template=")
    if not (path / ".dvc" / "config").is_file():
        # An interrupted creation leaves a folder without its configuration: make it anew.
        shutil.rmtree(path / ".dvc", ignore_errors=True)
        repo_class = _repo_class()
        with contextlib.closing(repo_class.init(str(path))) as repo, repo.config.edit("repo") as config:
            config["core"].update(analytics=False, check_update=False, autostage=False, remote="store")
            config["cache"]["type"] = "copy"
    workspace.point(remote or str(home / "remote"))
    # Byte code holds paths and times: with it in a dependency no stage would ever be unchanged.
    (path / ".dvcignore").write_text("__pycache__/\n", encoding="utf-8")
    _heal(workspace)
    return workspace


def _heal(workspace: Workspace) -> None:
    """Mend what was cut off while DVC wrote it: dvc.lock becomes the last one that was committed, or none; who reads and writes is told anew."""
    _heal_rwlock(workspace.path / ".dvc" / "tmp")
    path = workspace.path / "dvc.lock"
    if not path.exists():
        return
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        whole = all("cmd" in stage and "outs" in stage for stage in loaded["stages"].values())
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        path.unlink()
        _git(workspace, "checkout", "-q", "--", "dvc.lock", check=False)


def _heal_rwlock(folder: Path) -> None:
    """DVC notes who reads and writes a path, and what of it is not JSON it refuses for ever. Under its own guard nobody else is writing it."""
    from dvc.lock import make_lock

    path = folder / "rwlock"
    if not path.exists():
        return
    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder), wait=True):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            path.unlink()


def run_stage(workspace: Workspace, name: str, function: Callable[[], None]) -> bool:
    """Run a stage's function in process and record it as `dvc repro -s` would; False where nothing changed.

    Outputs are removed first, as `dvc repro` does. Where the function raises, dvc.lock and the outputs stay as they were.
    """
    from dvc.repo import lock_repo

    with _open(workspace) as repo:
        with lock_repo(repo):
            stage = repo.stage.load_one(str(workspace.path / "dvc.yaml"), name)
            if not stage.changed():
                return False
            kept = _keep(workspace, [Path(out.fs_path) for out in stage.outs])
            stage.remove_outs(ignore_remove=False, force=False)
        try:
            function()
        except Exception:
            # A stage that failed leaves what the last good run made.
            for out, copy in kept.items():
                out.parent.mkdir(parents=True, exist_ok=True)
                os.replace(copy, out)
            raise
        with lock_repo(repo):
            stage.save(run_cache=False)
            stage.commit()
            stage.dump(update_pipeline=False)
    return True


def _keep(workspace: Workspace, outs: list[Path]) -> dict[Path, Path]:
    """Set the outputs aside, where they are there; each one's copy."""
    aside = workspace.path / ".dvc" / "tmp" / "before"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    kept = {out: aside / str(place) for place, out in enumerate(outs) if out.exists()}
    for out, copy in kept.items():
        os.replace(out, copy)
    return kept


def publish(workspace: Workspace, message: str) -> None:
    """Push every output to the remote and commit the definition and the lock to the workspace's Git."""
    with _open(workspace) as repo, _told(repo):
        repo.push()
    named = ("dvc.yaml", "dvc.lock", "params.yaml", "code.txt", "problem", "metrics", ".dvc/config", ".dvc/.gitignore", ".dvcignore")
    there = [name for name in named if (workspace.path / name).exists()]
    there += [str(p.relative_to(workspace.path)) for p in workspace.path.glob("*/.gitignore") if p.parent.name != ".dvc"]
    _git(workspace, "add", "--", *there)
    if _git(workspace, "diff", "--cached", "--quiet", check=False).returncode:
        _git(workspace, "commit", "-q", "--no-verify", "-m", message)


def published(workspace: Workspace) -> str | None:
    """The dvc.lock of the last generation whose stages were all done and pushed; None where there is none.

    What a stage was making when it was killed is not in it, and what it was made from is not lost.
    """
    told = _git(workspace, "show", "HEAD:dvc.lock", check=False)
    return told.stdout if told.returncode == 0 else None


def restore(workspace: Workspace, lock: str, path: str, target: Path) -> None:
    """Bring back an output as it was when that dvc.lock was written, from the cache or the remote.

    FileNotFoundError where neither holds it any more.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    wanted = digest(lock, path)
    with _open(workspace) as repo:
        cached = Path(repo.cache.local.oid_to_path(wanted))
        if not cached.exists():
            with _told(repo):
                repo.cloud.pull([HashInfo("md5", wanted)], odb=repo.cloud.get_remote_odb(None, "pull"))
        if not cached.exists():
            raise FileNotFoundError(f"{path} with content {wanted} is neither in the cache nor in the remote")
        target.parent.mkdir(parents=True, exist_ok=True)
        with drafted(target) as draft:
            shutil.copyfile(cached, draft)


@contextlib.contextmanager
def _open(workspace: Workspace) -> Iterator[Any]:
    os.environ.update(quiet_environment(workspace.home))
    with contextlib.closing(_repo_class()(str(workspace.path))) as repo:
        yield repo


@contextlib.contextmanager
def _told(repo: Any) -> Iterator[None]:
    """A remote that cannot be reached, or refuses, is said in a sentence, whatever its library raises."""
    try:
        yield
    except Exception as error:
        url = repo.config["remote"]["store"]["url"]
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise StackError(f"DVC's remote {url} cannot be used: {said}. Check that it is up, its keys, and RATCHET_DVC_REMOTE.") from error


def _repo_class() -> Any:
    from dvc.repo import Repo

    # DVC sets its own level on import: only what is wrong is worth a person's time.
    logging.getLogger("dvc").setLevel(logging.ERROR)
    return Repo


def _git(workspace: Workspace, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(workspace.path), "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= quiet_environment(workspace.home) | IDENTITY
    return subprocess.run([*command, *arguments], env=environment, check=check, capture_output=True, text=True)
