"""Panels and dashboards in minilog's style, over grafana-foundation-sdk's builders.

``expressions`` finds every query again, in the built dashboard, so that a test can run them in a
real Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.common import GraphDrawStyle as Draw
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG: Final = "minilog"
DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
RATE: Final = "$__rate_interval"
STAT_HEIGHT, PANEL_HEIGHT = 4, 8
FULL_WIDTH: Final = 24


class Query(NamedTuple):
    """``legend`` names the series, with {{label}}."""

    expr: str
    legend: str = ""


class Limit(NamedTuple):
    """From ``value`` on the number is shown in ``colour``."""

    value: float
    colour: str


Variable = dashboard.QueryVariable | dashboard.DatasourceVariable


def number(
    title: str, expr: str, what: str, *, unit: str = "short", limits: Sequence[Limit] = (), span: int = 3
) -> Any:
    """One figure; green until a limit says otherwise."""
    return (
        stat.Panel()
        .title(title)
        .description(what)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(span)
        .height(STAT_HEIGHT)
        .no_value("none")
        .color_mode(BigValueColorMode.BACKGROUND if limits else BigValueColorMode.VALUE)
        .thresholds(_thresholds(limits))
        .with_target(prometheus.Dataquery().expr(expr).instant().ref_id("A"))
    )


def lines(
    title: str, queries: Sequence[Query], what: str, *, unit: str = "short", steps: bool = False, span: int = 12
) -> Any:
    """Series over time. ``steps`` for what changes at once, such as the size of an ISR."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(PANEL_HEIGHT)
        .line_width(1)
        .fill_opacity(8)
        .draw_style(Draw.LINE)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    if steps:
        from grafana_foundation_sdk.models.common import LineInterpolation

        panel = panel.line_interpolation(LineInterpolation.STEP_AFTER)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(
            prometheus.Dataquery().expr(query.expr).range().legend_format(query.legend).ref_id(letter)
        )
    return panel


def rows(title: str, expr: str, what: str, *, unit: str = "short", span: int = 12) -> Any:
    """A table of the series as they are now."""
    return (
        table.Panel()
        .title(title)
        .description(what)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(span)
        .height(PANEL_HEIGHT)
        .with_target(prometheus.Dataquery().expr(expr).instant().format(PromQueryFormat.TABLE).ref_id("A"))
    )


def choice(name: str, label: str, query: str) -> Any:
    """A variable at the top of the page. All values by default."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def page(uid: str, title: str, what: str, variables: Sequence[Any]) -> Any:
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(what)
        .tags([TAG])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("minilog").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        board = board.with_variable(variable)
    return board


def _thresholds(limits: Sequence[Limit]) -> Any:
    steps = [Threshold(value=None, color="green"), *(Threshold(value=at, color=colour) for at, colour in limits)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def as_json(board: Any) -> str:
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def expressions(text: str) -> Iterator[tuple[str, str]]:
    """(panel title, expression) of every query in a dashboard's JSON, panels in rows included."""
    panels = list(json.loads(text)["panels"])
    while panels:
        panel = panels.pop(0)
        panels += panel.get("panels") or ()
        for target in panel.get("targets") or ():
            yield panel["title"], target["expr"]
