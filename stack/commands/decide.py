"""What may a person decide, against the gate or beside it?"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stack.commands.common import ASKABLE, ProblemOption, Reason, console, running, sentences

app = typer.Typer()


@app.command()
def promote(version: Annotated[str, typer.Argument(help="A registered version.")], reason: Reason, problem: ProblemOption = None) -> None:
    """Let a version answer on a person's word, whatever the gate said."""
    with sentences():
        setting = running(problem)
        from flows.person import promote as override

        console.print(override(setting, version, reason))


@app.command()
def challenge(
    reason: Reason,
    version: Annotated[str | None, typer.Argument(help="A registered version; nobody where left out.")] = None,
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help="Its share of the live requests.")] = 0.1,
    problem: ProblemOption = None,
) -> None:
    """Let a version answer a share of the live requests beside the champion: the same entities every time."""
    with sentences():
        setting = running(problem)
        from flows.person import challenge as stand

        console.print(stand(setting, version, share, reason))


@app.command()
def shadow(
    reason: Reason,
    version: Annotated[str | None, typer.Argument(help="A registered version; nobody where left out.")] = None,
    problem: ProblemOption = None,
) -> None:
    """Let a version score every live request for the log alone."""
    with sentences():
        setting = running(problem)
        from flows.person import shadow as follow

        console.print(follow(setting, version, reason))


@app.command()
def rollback(reason: Reason, problem: ProblemOption = None) -> None:
    """Let the version answer that answered before."""
    with sentences():
        setting = running(problem)
        from flows.person import rollback as back

        console.print(back(setting, reason))


@app.command()
def pause(reason: Reason, problem: ProblemOption = None) -> None:
    """Keep the monitor from starting any retraining."""
    with sentences():
        setting = running(problem)
        from flows.person import pause as stop

        console.print(stop(setting, reason))


@app.command()
def resume(reason: Reason, problem: ProblemOption = None) -> None:
    """Let the monitor start retraining again, also after so many that made no generation that it asks."""
    with sentences():
        setting = running(problem)
        from flows.person import resume as go

        console.print(go(setting, reason))


@app.command()
def trust(
    first: Annotated[int | None, typer.Argument(help="A place of the log. Left out: lists the rows that are kept from teaching.")] = None,
    last: Annotated[int | None, typer.Argument(help="The last place; FIRST alone where left out.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Goes to the ledger.")] = None,
    problem: ProblemOption = None,
) -> None:
    """List the rows of the log that a monitor keeps from teaching, or let some of them teach again."""
    with sentences():
        if first is not None and reason is None and not ASKABLE:
            raise typer.BadParameter("it goes to the ledger, and has to be given", param_hint="--reason")
        setting = running(problem)
        from flows.person import kept_out
        from flows.person import trust as believe

        if first is not None:
            console.print(believe(setting, first, last if last is not None else first, reason or typer.prompt("Why")))
            return
        known = kept_out(setting)
        table = Table("from", "to", "why")
        for stretches, why in (
            (known.without, "blocked, or somebody tried the model out"),
            (known.audited, "labels doubted; audited ones teach"),
        ):
            for one, other in stretches:
                table.add_row(f"{one}", f"{other}", why)
        if known.until is not None:
            table.add_row(
                f"{known.until + 1}", "", "younger than the label delay, and labels of one class come sooner or may; audited ones teach"
            )
        if not table.row_count:
            console.print(f"{setting.problem.name}: every labelled row teaches.")
            return
        console.print(table)
        console.print("The service's /decisions?action=block,ask says why; `ratchet trust FIRST LAST --reason ...` lets rows teach again.")
