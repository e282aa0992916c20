"""What the panels of the dashboards showed, as Grafana would have asked for it."""

from __future__ import annotations

from grafana.__main__ import built
from grafana.panels import expressions
from tests.process.rig.prometheus import Prometheus


def judge(seen: Prometheus) -> tuple[list[str], set[str]]:
    """Expressions without any series, and the panels whose numbers have changed."""
    empty, moved = [], set()
    for text in built().values():
        for title, template in expressions(text):
            series = seen.so_far(_expr(template))
            if not series:
                empty.append(f"{title}: {template}")
            if any(len(set(values)) > 1 for values in series.values()):
                moved.add(title)
    return empty, moved


def has_moved(seen: Prometheus, title: str) -> bool:
    """Whether the panel with this title would show that something has changed."""
    templates = (template for text in built().values() for found, template in expressions(text) if found == title)
    return any(len(set(values)) > 1 for one in templates for values in seen.so_far(_expr(one)).values())


def _expr(template: str) -> str:
    """As Grafana would fill it in, with every topic and group chosen."""
    return template.replace("$__rate_interval", "15s").replace("$topic", ".*").replace("$group", ".*")
