"""How far long work has come: a bar on a terminal, a plain line now and then elsewhere; always on
stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from minilog.cli.output import note

PLAIN_INTERVAL_S = 2.0


@contextlib.contextmanager
def progress_bar(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(done so far)``. Without a total there is no bar, only the count."""
    if not sys.stderr.isatty():
        yield _plain(what, total, unit)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _plain(what: str, total: int | None, unit: str) -> Callable[[int], None]:
    last_s = time.monotonic()

    def advance(done: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= PLAIN_INTERVAL_S:
            last_s = time.monotonic()
            note(f"{what}: {done:,}{f' of {total:,}' if total else ''} {unit}")

    return advance
