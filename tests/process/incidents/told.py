"""What minilog says of itself, as a person asks for it: health, events, failovers, lost records.
Nothing in here looks at what the incident did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from tests.process.rig.cluster import ProcessCluster

COMMANDS: Final = {
    "health": ("cluster", "health"),
    "events": ("cluster", "events", "--level", "warning"),
    "failovers": ("cluster", "failovers"),
    "lost": ("lost", "list"),
}
COMMAND_S: Final = 120.0
ANSWER_S: Final = 3.0
_COMMAND: Final = re.compile(r"`minilog ([^`]+)`")


@dataclass
class Told:
    """At one moment. ``texts``: what the commands printed, by name."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    is_healthy: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    failovers: list[dict[str, Any]] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    """Records in quarantine, by acks."""
    texts: dict[str, str] = field(default_factory=dict)

    def finding(self, kind: str) -> dict[str, Any] | None:
        return next((found for found in self.findings if found["kind"] == kind), None)

    def since(self, began_ms: float) -> list[dict[str, Any]]:
        return [event for event in self.events if event["at_ms"] >= began_ms]


def ask(cluster: ProcessCluster) -> Told:
    with ThreadPoolExecutor(4) as pool:
        texts = dict(zip(COMMANDS, pool.map(lambda words: minilog(cluster, *words)[1], COMMANDS.values()), strict=True))
    health = _answer(cluster, "/v1/cluster/health") or {"findings": [], "healthy": False}
    events = _answer(cluster, "/v1/cluster/events") or {"events": []}
    failovers = _answer(cluster, "/v1/cluster/failovers") or {"failovers": []}
    return Told(
        health["findings"],
        health["healthy"],
        [noted["event"] for noted in events["events"]],
        failovers["failovers"],
        _lost(cluster),
        texts,
    )


def minilog(cluster: ProcessCluster, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "minilog", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        env=os.environ | {"MINILOG_URL": cluster.url, "COLUMNS": "120"},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def commands_that_fail(cluster: ProcessCluster, next_step: str) -> list[str]:
    """Of the commands that a next step names. 1 is an answer, too: the cluster says no."""
    failed = []
    for words in _COMMAND.findall(next_step):
        filled = words.replace("DATA_DIR", str(cluster.data_dir(cluster.broker_ids[0]))).split()
        code, said = minilog(cluster, *filled)
        if code > 1:
            failed.append(f"`minilog {words}` ends with {code}: {said.strip()[-200:]}")
    return failed


def _answer(cluster: ProcessCluster, path: str) -> Any:
    """Of the first broker that answers, as the command line does. The last one first: the acts
    break the leader of partition 0, which is the first one."""
    for broker in reversed(cluster.dev.brokers):
        try:
            with urllib.request.urlopen(broker.url + path, timeout=ANSWER_S) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            continue
    return None


def _lost(cluster: ProcessCluster) -> Counter[str]:
    by_acks: Counter[str] = Counter()
    for answer in cluster.ask_all("/v1/lost").values():
        for tail in answer["tails"]:
            by_acks.update(tail["records_by_acks"])
    return by_acks
