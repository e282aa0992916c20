"""Exposition: the text that Prometheus reads, family by family.

prometheus_client makes an object of each sample and takes 25 us for it. A broker with a thousand
partitions has fifteen thousand of them. So what there is one of per partition or group is written
as text at once, and the client library keeps what it is good for: histograms, and the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from minilog.server.durations import BUCKETS_S, Durations

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Sample = tuple[str, float | int]
"""Labels as ``labels`` makes them, and the value."""


def labels(**named: object) -> str:
    """As they stand behind the name, in the order of the alphabet; "" for none."""
    if not named:
        return ""
    return "{" + ",".join(f'{name}="{escaped(str(value))}"' for name, value in sorted(named.items())) + "}"


def escaped(value: str) -> str:
    return value.translate(_ESCAPES)


class Family:
    """All samples of one name."""

    __slots__ = ("_doc", "_kind", "_lines", "name")

    def __init__(self, kind: str, name: str, doc: str) -> None:
        self._kind, self.name, self._doc = kind, name, doc
        self._lines: list[str] = []

    def add(self, labels: str, value: float) -> None:
        self._lines.append(f"{self.name}{labels} {value}\n")

    def text(self) -> str:
        """With its head also where there is no sample: somebody may look whether there is such a
        thing."""
        head = f"# HELP {self.name} {self._doc}\n# TYPE {self.name} {self._kind}\n"
        return head + "".join(self._lines)


class Exposition:
    """One answer to one scrape."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def gauge(self, name: str, doc: str, samples: Iterable[Sample] | float = ()) -> Family:
        return self._family("gauge", name, doc, samples)

    def counter(self, name: str, doc: str, samples: Iterable[Sample] | float = ()) -> Family:
        """``name`` without _total."""
        return self._family("counter", f"{name}_total", doc, samples)

    def durations(self, name: str, doc: str, durations: Durations) -> None:
        family = Family("histogram", name, doc)
        self._families[name] = family
        lines, below = [], 0
        for bound, count in zip((*BUCKETS_S, "+Inf"), durations.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {below}\n')
        family._lines += [*lines, f"{name}_sum {durations.sum_s}\n", f"{name}_count {below}\n"]

    def text(self) -> bytes:
        return "".join(family.text() for family in self._families.values()).encode()

    def _family(self, kind: str, name: str, doc: str, samples: Iterable[Sample] | float) -> Family:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = Family(kind, name, doc)
        for label, value in [("", samples)] if isinstance(samples, int | float) else samples:
            family.add(label, value)
        return family
