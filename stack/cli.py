"""What can a person tell Ratchet to do? The command line, put together from its groups."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from types import FrameType
from typing import Annotated

import typer

from stack.commands import answer, decide, live, measure, operate

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False)


def _version(asked: bool) -> None:
    if asked:
        print(f"ratchet {version('ratchet')}")
        raise typer.Exit


@app.callback()
def ratchet(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")] = False,
) -> None:
    """A model's whole life as a closed loop: validate, version, train, test, release, serve, watch, retrain."""


for title, group in (
    ("The stack", operate),
    ("A problem's life", live),
    ("Its answers", answer),
    ("A person's word", decide),
):
    for command in group.app.registered_commands:
        command.rich_help_panel = title
    app.add_typer(group.app)
app.add_typer(measure.app, name="experiment", rich_help_panel="Measure")


def _interrupted(number: int, frame: FrameType | None) -> None:
    print("\nInterrupted: what is at work is brought to an end. This may take a minute.", file=sys.stderr)
    signal.default_int_handler(number, frame)


def main() -> None:
    """The entry point."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
        # Who ends a job this way, as CI does at its time limit, wants no servers left behind either.
        signal.signal(signal.SIGTERM, _interrupted)
    app()


if __name__ == "__main__":
    main()
