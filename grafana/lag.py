"""Lag: how far consumer groups are behind, in records and in seconds."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders.dashboard import Row

from grafana.panels import RATE, Limit, Query, choice, lines, number, page, rows

GROUP = 'group=~"$group"'
PLACE = f'{GROUP}, topic=~"$topic"'
ONCE = "max by (group, topic, partition)"
"""While a group changes its coordinator, two brokers may be seen to tell of it."""


def build() -> Any:
    board = page(
        "minilog-lag",
        "minilog: Lag",
        "Consumer groups: what is committed, how far behind the high watermark it is, and since when.",
        [
            choice("group", "Group", "label_values(minilog_consumergroup_lag, group)"),
            choice("topic", "Topic", f"label_values(minilog_consumergroup_lag{{{GROUP}}}, topic)"),
        ],
    )
    for panel in (*_now(), Row("Over time"), *_over_time(), Row("Members"), *_members()):
        board = board.with_row(panel) if isinstance(panel, Row) else board.with_panel(panel)
    return board


def _now() -> list[Any]:
    return [
        number(
            "Largest lag",
            f"max(minilog_consumergroup_lag_seconds{{{PLACE}}})",
            "Age of the oldest record that a group has not committed yet.",
            unit="s",
            limits=[Limit(60, "orange"), Limit(600, "red")],
            span=6,
        ),
        number(
            "Records waiting",
            f"sum({ONCE} (minilog_consumergroup_lag{{{PLACE}}}))",
            "Committed by producers, not yet by the groups shown.",
            span=6,
        ),
        number("Groups", f"count(count by (group) (minilog_consumergroup_lag{{{PLACE}}}))", "With offsets.", span=6),
        number(
            "Members now", f"sum(minilog_consumergroup_members{{{GROUP}}})", "Live members of the groups shown.", span=6
        ),
    ]


def _over_time() -> list[Any]:
    return [
        lines(
            "Lag by group, seconds",
            [Query(f"max by (group) (minilog_consumergroup_lag_seconds{{{PLACE}}})", "{{group}}")],
            "Age of the first record that is not committed, of the slowest partition. Flat and rising: nobody reads.",
            unit="s",
        ),
        lines(
            "Lag by group, records",
            [Query(f"sum by (group) ({ONCE} (minilog_consumergroup_lag{{{PLACE}}}))", "{{group}}")],
            "Records between the committed offset and the high watermark.",
        ),
        lines(
            "Lag by partition, records",
            [
                Query(
                    f"topk(10, max by (group, topic, partition) (minilog_consumergroup_lag{{{PLACE}}}))",
                    "{{group}}: {{topic}}-{{partition}}",
                )
            ],
            "The ten partitions that are furthest behind.",
        ),
        lines(
            "Committed per second",
            [
                Query(
                    f"sum by (group) ({ONCE} (clamp_min(deriv(minilog_consumergroup_committed_offset{{{PLACE}}}[{RATE}]), 0)))",
                    "{{group}}",
                ),
            ],
            "How fast groups move on. Zero while records wait: stuck.",
        ),
    ]


def _members() -> list[Any]:
    return [
        lines(
            "Members",
            [Query(f"max by (group) (minilog_consumergroup_members{{{GROUP}}})", "{{group}}")],
            "Members whose heartbeats arrive.",
            steps=True,
        ),
        rows(
            "Lag now, records",
            f"sort_desc(max by (group, topic, partition) (minilog_consumergroup_lag{{{PLACE}}}))",
            "Every partition with a committed offset.",
        ),
    ]
