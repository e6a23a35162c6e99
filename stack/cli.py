"""What can a person tell Ratchet to do? The command line, put together from its groups."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from stack.commands import answer, decide, live, measure, operate
from stack.interrupt import interruptible

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


def main() -> None:
    """The entry point."""
    interruptible()
    app()


if __name__ == "__main__":
    main()
