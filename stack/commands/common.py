"""What do the commands share? Their options, the console, and the way to a problem; vendors are imported only where they are used."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console()

ProblemName = Annotated[str, typer.Argument(help="A problem's name under problems/, or the path of its folder.")]
ProblemOption = Annotated[str | None, typer.Option("--problem", help="A problem's name or folder; the running stack's where left out.")]
# Without a terminal nobody could be asked: then it is an option that is missing.
ASKABLE = sys.stdin is not None and sys.stdin.isatty()
Reason = Annotated[str, typer.Option("--reason", prompt="Why" if ASKABLE else False, help="Goes to the ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def sentences() -> Iterator[None]:
    """Foreseeable mistakes end in a sentence: exit code 2 for wrong input, 1 for a stack that cannot do its work."""
    from ratchet.errors import BatchError, ContractError, RatchetError

    try:
        yield
    except (BatchError, ContractError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    except RatchetError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def problem_folder(name: str) -> Any:
    """The folder of a problem, both its files read: a wrong one is told before anything starts. ContractError where there is none."""
    from ratchet.problem import find_problem
    from ratchet.settings import settings

    found = find_problem(name, settings().problems)
    _ = found.problem, found.contract
    return found


def not_in_containers() -> None:
    """StackError where the stack that is up is the one in containers: its store is reached from inside alone."""
    from ratchet.errors import StackError
    from ratchet.settings import settings
    from stack import deploy as compose
    from stack import processes

    if not processes.urls(settings().home) and not processes.elsewhere() and compose.reached():
        told = shlex.join(sys.argv[1:])
        raise StackError(f"The stack runs in containers, and its store is reached from inside: docker compose exec worker ratchet {told}")


def asked_for(problem: str | None) -> str:
    """The problem that was named, else the one that the running stack serves."""
    from ratchet.settings import settings
    from stack import deploy as compose
    from stack import processes

    home = processes.look_at_running(settings().home)
    if not problem and not processes.urls(home) and not processes.elsewhere() and compose.reached():
        compose.adopt()
    return problem or processes.served(settings().home) or settings().problem


def running(problem: str | None = None) -> Any:
    """The setting of a problem in the stack of this machine: the one of `ratchet up`, else that of a demonstration."""
    from ratchet.settings import settings
    from stack import processes

    home = processes.look_at_running(settings().home)
    name = problem or processes.served(home) or settings().problem
    not_in_containers()
    processes.adopt(home, str(problem_folder(name).path))
    from flows.setting import Setting

    return Setting.of(name)


def site_of(problem: str) -> Any:
    """Where flows of a problem run: on this machine, or in the containers of `ratchet deploy`."""
    from ratchet.settings import settings
    from stack import deploy as compose
    from stack import processes

    local = processes.urls(processes.look_at_running(settings().home)) or processes.elsewhere()
    if not local and compose.reached():
        compose.adopt()
        from stack.demo import deployed_site

        return deployed_site(str(problem_folder(problem).path))
    setting = running(problem)
    from flows.site import Here

    return Here(setting)
