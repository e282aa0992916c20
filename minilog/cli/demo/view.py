"""How the demo shows itself: a live table on a terminal, plain lines elsewhere. It only reads
``DemoState``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from minilog.wire.journal.metadata_records import NO_LEADER

EVENTS_SHOWN = 10
PLAIN_INTERVAL_S = 1.0
WIDTH_MAX = 100


@dataclass
class PartitionView:
    leader: int = NO_LEADER
    isr: list[int] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    acknowledged: int = 0


@dataclass
class DemoState:
    """Everything the view shows. ``events`` are (seconds since the start, sentence)."""

    title: str = ""
    phase: str = ""
    began: float = field(default_factory=time.monotonic)
    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    records_per_second: float = 0.0
    partitions: dict[int, PartitionView] = field(default_factory=dict)
    brokers: dict[int, str] = field(default_factory=dict)
    events: list[tuple[float, str]] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        self.events.append((time.monotonic() - self.began, sentence))


class View(Protocol):
    def __enter__(self) -> View: ...
    def __exit__(self, *unused: object) -> None: ...
    def update(self) -> None:
        """Show what changed; called several times a second."""
        ...


class PlainView:
    """Each event once, and a line of figures every second while records flow."""

    def __init__(self, state: DemoState) -> None:
        self._state = state
        self._shown = 0
        self._last_s = time.monotonic()
        self._last_acknowledged = 0

    def __enter__(self) -> View:
        return self

    def __exit__(self, *unused: object) -> None:
        self._show_events()

    def update(self) -> None:
        self._show_events()
        state, now_s = self._state, time.monotonic()
        if now_s - self._last_s >= PLAIN_INTERVAL_S and state.acknowledged != self._last_acknowledged:
            self._last_s, self._last_acknowledged = now_s, state.acknowledged
            isr = sum(len(view.isr) for view in state.partitions.values())
            full = sum(len(view.replicas) for view in state.partitions.values())
            print(
                f"{now_s - state.began:6.1f} s  sent {state.sent:,}  acknowledged {state.acknowledged:,}  "
                f"{state.records_per_second:,.0f} records/s  in sync {isr}/{full}",
                flush=True,
            )

    def _show_events(self) -> None:
        for at_s, sentence in self._state.events[self._shown :]:
            print(f"{at_s:6.1f} s  {sentence}", flush=True)
        self._shown = len(self._state.events)


class LiveView:
    def __init__(self, state: DemoState, console: Console) -> None:
        self._state = state
        self._live = Live(render(state), console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> View:
        self._live.__enter__()
        return self

    def __exit__(self, *unused: object) -> None:
        self._live.update(render(self._state))
        self._live.__exit__(None, None, None)

    def update(self) -> None:
        self._live.update(render(self._state))


def view_of(state: DemoState, plain: bool) -> View:
    console = Console()
    if plain or not console.is_terminal:
        return PlainView(state)
    return LiveView(state, Console(width=min(WIDTH_MAX, console.width)))


def render(state: DemoState) -> Group:
    figures = Text.assemble(
        ("sent ", "dim"), f"{state.sent:,}   ",
        ("acknowledged ", "dim"), (f"{state.acknowledged:,}", "bold green"), "   ",
        ("records/s ", "dim"), f"{state.records_per_second:,.0f}   ",
        *((("failed ", "dim"), (f"{state.failed:,}", "bold red")) if state.failed else ()),
    )  # fmt: skip
    head = Text(f"{state.title}   {state.phase}", style="bold")
    return Group(
        head, _brokers(state), Text(""), _partitions(state), Text(""), figures, Text(""), _events(state.events)
    )


def _brokers(state: DemoState) -> Text:
    line = Text()
    for broker, word in sorted(state.brokers.items()):
        style = {"running": "green", "dead": "bold red"}.get(word, "yellow")
        line.append(f"broker {broker} ", "dim").append(word, style).append("   ")
    return line


def _partitions(state: DemoState) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for title, justify in (("partition", "right"), ("leader", "right"), ("in sync", "left"), ("acknowledged", "right")):
        table.add_column(title, justify="right" if justify == "right" else "left")
    for number, view in sorted(state.partitions.items()):
        leader = Text("none", "bold red") if view.leader == NO_LEADER else Text(str(view.leader), "bold cyan")
        table.add_row(str(number), leader, _isr(view), f"{view.acknowledged:,}")
    return table


def _isr(view: PartitionView) -> Text:
    line = Text()
    for replica in view.replicas:
        line.append(f"{replica} " if replica in view.isr else "- ", "green" if replica in view.isr else "bold red")
    return line


def _events(events: Iterable[tuple[float, str]]) -> Text:
    shown = list(events)[-EVENTS_SHOWN:]
    return Text("\n".join(f"{at_s:6.1f} s  {sentence}" for at_s, sentence in shown))
