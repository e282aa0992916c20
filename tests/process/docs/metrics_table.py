"""The metrics of a real cluster beside the table of ``minilog/docs/metrics.md``.

``python -m tests.process.docs.metrics_table`` prints the rows as a cluster serves them."""

from __future__ import annotations

import asyncio
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

from minilog_client import AsyncClient
from tests.process.rig.cluster import ProcessCluster, process_cluster

PAGE: Final = Path(__file__).parents[3] / "minilog/docs/metrics.md"
_HEAD = re.compile(r"# (HELP|TYPE) (\S+) (.*)")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$")
_LABEL = re.compile(r'([a-z_]+)="')
_ROW = re.compile(r"\| `(minilog_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|")
GROUP, TOPIC = "billing", "orders"


class Family(NamedTuple):
    kind: str
    labels: frozenset[str]
    doc: str
    roles: frozenset[str]


def families(text: str, role: str) -> dict[str, Family]:
    """Of minilog's own, by name."""
    kinds: dict[str, str] = {}
    docs: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            (docs if head[1] == "HELP" else kinds)[head[2]] = head[3]
            continue
        sample = _SAMPLE.match(line)
        assert sample, line
        name = sample[1]
        if kinds.get(name) is None:
            name = re.sub(r"_(bucket|sum|count)$", "", name)
        found.setdefault(name, set()).update(_LABEL.findall(sample[2] or ""))
    return {
        name: Family(kind, frozenset(found.get(name, set()) - {"le"}), docs[name], frozenset([role]))
        for name, kind in kinds.items()
        if name.startswith("minilog_")
    }


def merged(*pages: dict[str, Family]) -> dict[str, Family]:
    found: dict[str, Family] = {}
    for page in pages:
        for name, family in page.items():
            before = found.get(name, family)
            found[name] = Family(family.kind, before.labels | family.labels, before.doc, before.roles | family.roles)
    return found


def served(cluster: ProcessCluster) -> dict[str, Family]:
    pages = []
    for member in cluster.dev.members:
        with urllib.request.urlopen(f"{member.url}/metrics", timeout=5) as answer:
            pages.append(families(answer.read().decode(), member.role))
    return merged(*pages)


def written() -> dict[str, Family]:
    """The rows of the page."""
    rows = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        name: Family(kind, _words(labels), meaning, frozenset(told_by.split(" and ")))
        for name, kind, labels, meaning, told_by in rows
    }


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z_]+", text))


async def use(url: str) -> None:
    """Something of each: writes of several kinds, a refusal, a group that has committed."""
    async with AsyncClient(url) as client:
        await client.create_topic(TOPIC, partitions=3, replication_factor=3, config={"min.insync.replicas": "2"})
        for acks in ("all", 1):
            async with client.producer(acks=acks) as producer:
                await producer.send(TOPIC, b"1")
        async with client.consumer(TOPIC, group=GROUP, start="earliest") as consumer:
            await consumer.batch(max_records=2, max_wait_ms=5000)
            await consumer.commit()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, process_cluster(Path(folder) / "cluster") as cluster:
        asyncio.run(use(cluster.url))
        for name, family in sorted(served(cluster).items()):
            columns = family.kind, ", ".join(sorted(family.labels)), family.doc, " and ".join(sorted(family.roles))
            print(f"| `{name}` | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
