"""Reads what a scrape has written, as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from minilog.server.exposition import Exposition

Samples = dict[tuple[str, str], float]
"""(name, labels as "a=b,c=d") -> value."""


def samples_in(text: str) -> Samples:
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples_of(page: Exposition) -> Samples:
    return samples_in(page.text().decode())
