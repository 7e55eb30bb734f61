"""Grafana's JSON for dashboards made of rows of panels over one Prometheus.

It knows Grafana's schema and nothing of this project's metrics: `dashboards.py` says which panels there are. Nothing in
what it returns depends on time or chance, so a dashboard that did not change renders to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 38
"""Of Grafana 10.1; newer ones migrate it by themselves when they load it."""

COLUMNS = 24
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Kind = Literal["stat", "timeseries", "heatmap"]
Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One PromQL expression of a panel.

    Attributes:
        expr: PromQL, Grafana's variables included.
        legend: Grafana's template of the series' name.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What is seen.
        queries: Up to 26.
        unit: Grafana's id of the unit.
        kind: How it is drawn.
        description: Shown on the panel's corner.
        limit: A value to draw as a line, or from which a stat is red.
        red_below: Whether values below the limit are the bad ones.
        width: Of 24 columns.
        from_zero: Whether the axis begins at 0.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    description: str = ""
    limit: float | None = None
    red_below: bool = False
    width: int = 8
    from_zero: bool = True

    @property
    def height(self) -> int:
        """In Grafana's units of 30 pixels."""
        return 4 if self.kind == "stat" else 8


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Choice:
    """A variable that the viewer chooses from the values of a label.

    Attributes:
        name: Of the variable and the label.
        series: The series that have the label.
    """

    name: str
    series: str


@dataclass(frozen=True)
class Dashboard:
    """A dashboard."""

    uid: str
    title: str
    description: str
    choices: Sequence[Choice]
    rows: Sequence[Row]


def render(dashboard: Dashboard) -> Json:
    """Return a dashboard as Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["pcs"],
        "timezone": "utc",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source_variable(), *map(_variable, dashboard.choices)]},
        "panels": _place(dashboard.rows),
    }


def _place(rows: Sequence[Row]) -> list[Json]:
    """Put the panels of each row from left to right, and what does not fit below."""
    placed: list[Json] = []
    top = 0
    for row in rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            placed.append(_panel(panel, len(placed) + 1, place))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return placed


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATA_SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _field(panel: Panel) -> Json:
    field: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.kind == "timeseries":
        field["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 5,
            "showPoints": "never",
            "thresholdsStyle": {"mode": "line" if panel.limit is not None else "off"},
        }
        if panel.from_zero:
            field["min"] = 0
    return field


def _steps(panel: Panel) -> list[Json]:
    colors = ("red", "green") if panel.red_below else ("green", "red")
    steps: list[Json] = [{"value": None, "color": colors[0] if panel.limit is not None else "green"}]
    if panel.limit is not None:
        steps.append({"value": panel.limit, "color": colors[1]})
    return steps


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "stat":
            return {
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "textMode": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
            }
        case "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "reverse": False},
                "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
                "legend": {"show": True},
                "tooltip": {"show": True, "yHistogram": False},
            }
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }


def _source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
    }


def _variable(choice: Choice) -> Json:
    query = f"label_values({choice.series}, {choice.name})"
    return {
        "name": choice.name,
        "label": choice.name,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }
