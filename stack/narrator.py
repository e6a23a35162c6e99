"""How does a person follow a long command? Step by step: what happens, why, how it came out, how long it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape


class ConsoleNarrator:
    """Tells the steps on a console; on a terminal with a spinner, elsewhere line by line."""

    def __init__(self, console: Console) -> None:
        self._console, self._count = console, 0

    @contextlib.contextmanager
    def step(self, title: str, why: str) -> Iterator[Callable[[str], None]]:
        """Announce a step; the function it yields tells how the step came out."""
        self._count += 1
        begun = time.monotonic()
        said: list[str] = []
        self._console.print(f"[bold]{self._count:>2}. {escape(title)}[/bold]  [dim]{escape(why)}[/dim]")
        with self._console.status("working") if self._console.is_terminal else contextlib.nullcontext():
            yield said.append
        for line in said:
            self._console.print(f"    [green]{escape(line)}[/green] [dim]({time.monotonic() - begun:.1f} s)[/dim]", highlight=False)
