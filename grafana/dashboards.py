"""The dashboards: which panels there are. `make dashboards` renders them into dashboards/*.json, which are checked in.

Every metric of docs/operations.md is on one of them; tests/deploy/test_dashboards.py checks that, the rendered files, and
that every query returns data from a running backend. Series beginning with `job:` come from rules/pcs-backend.rules.yaml.
"""

from __future__ import annotations

import json
from pathlib import Path

from panels import Choice, Dashboard, Panel, Query, Row, render

FOLDER = Path(__file__).parent / "dashboards"

CHOSEN = 'job=~"$job", instance=~"$instance"'
JOB = 'job=~"$job"'
TENANT = f'{CHOSEN}, tenant=~"$tenant"'
RATE = "$__rate_interval"

LATENCY_OBJECTIVE_S = 0.2
LATENCY_BUDGET = 0.05
ESCALATION_BUDGET = 0.02
DEDUP_GOAL = 0.4


def rate(metric: str, chosen: str = CHOSEN, *, by: str = "", window: str = RATE) -> str:
    """Return the rate of a counter, summed over what is chosen."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{chosen}}}[{window}]))"


def increase(metric: str, *, by: str = "") -> str:
    """Return how much a counter grew in the time shown."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (increase({metric}{{{CHOSEN}}}[$__range]))"


def percentile(metric: str, share: float) -> str:
    """Return a percentile of a histogram."""
    return f"histogram_quantile({share}, {rate(metric + '_bucket', by='le')})"


def percentiles(metric: str) -> list[Query]:
    """Return the three that are drawn together."""
    return [Query(percentile(metric, share), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)]


def gauge(metric: str, legend: str = "{{instance}}") -> Query:
    """Return a gauge of each instance."""
    return Query(f"{metric}{{{CHOSEN}}}", legend)


def stat(title: str, expr: str, unit: str, limit: float | None = None, *, red_below: bool = False) -> Panel:
    """Return a panel of one number."""
    return Panel(title, [Query(expr)], unit=unit, kind="stat", limit=limit, red_below=red_below, width=4)


NOW = Row(
    "Now",
    [
        stat("Ready", f"min(flk_ready{{{CHOSEN}}})", "bool_yes_no", 1, red_below=True),
        stat("Store answers", f"min(flk_store_up{{{CHOSEN}}})", "bool_yes_no", 1, red_below=True),
        stat("Records a second", rate("flk_ingest_total"), "reqps"),
        stat("Slowest 5 % take at least", percentile("flk_verify_seconds", 0.95), "s", LATENCY_OBJECTIVE_S),
        stat(
            "Escalated, last day",
            f"max(job:flk_escalated:ratio_rate1d{{{JOB}}})",
            "percentunit",
            ESCALATION_BUDGET,
        ),
        stat("Open requests", f"sum(flk_open_requests{{{CHOSEN}}})", "short"),
    ],
)

TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            "Totals in the time shown",
            [
                Query(increase("flk_ingest_total"), "submitted"),
                Query(increase("flk_accepted_total"), "accepted"),
                Query(increase("flk_escalated_total"), "escalated"),
                Query(increase("flk_dedup_hits_total"), "replayed"),
            ],
            kind="stat",
            width=24,
            description="Counters restart with the process; the stored outcomes are the truth.",
        ),
        Panel(
            "Records a second",
            [
                Query(rate("flk_ingest_total"), "submitted"),
                Query(rate("flk_accepted_total"), "accepted"),
                Query(rate("flk_escalated_total"), "escalated"),
                Query(rate("flk_dedup_hits_total"), "replayed"),
            ],
            unit="reqps",
        ),
        Panel(
            "Answers that are no outcome, by problem",
            [Query(rate("flk_refused_total", by="problem"), "{{problem}}")],
            unit="reqps",
            description="4xx and 503.",
        ),
        Panel(
            "Refused signatures, by reason",
            [Query(rate("flk_signature_refused_total", by="reason"), "{{reason}}")],
            unit="reqps",
        ),
        Panel(
            "Submits under way, and how many may be",
            [
                gauge("flk_requests", "{{instance}} under way"),
                gauge("flk_requests_limit", "{{instance}} limit"),
            ],
        ),
        Panel(
            "Submits refused for overload",
            [Query(rate("flk_requests_shed_total", by="instance"), "{{instance}}")],
            unit="reqps",
            description="503, because the event loop never rested or REQUESTS_MAX were under way.",
        ),
        Panel("Connections", [gauge("flk_connections")]),
        Panel(
            "Connections refused",
            [Query(rate("flk_connections_refused_total", by="instance"), "{{instance}}")],
            unit="cps",
        ),
        Panel("Bytes of bodies on their way in", [gauge("flk_bodies_bytes")], unit="bytes"),
    ],
)

LATENCY = Row(
    "Time to an outcome",
    [
        Panel(
            "Heatmap",
            [Query(f"sum by (le) (increase(flk_verify_seconds_bucket{{{CHOSEN}}}[{RATE}]))", "{{le}}")],
            unit="s",
            kind="heatmap",
        ),
        Panel(
            "Percentiles",
            percentiles("flk_verify_seconds"),
            unit="s",
            limit=LATENCY_OBJECTIVE_S,
            description="From a complete body to its outcome. The objective: p95 within 0.2 s.",
        ),
        Panel(
            "Whole requests",
            percentiles("flk_request_seconds"),
            unit="s",
            description="From a submit's header to its answer, refusals included.",
        ),
        Panel(
            "Budget burn: latency",
            [
                Query(
                    f"job:flk_verify_slow:ratio_rate{window}{{{JOB}}} / {LATENCY_BUDGET}",
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h", "3d")
            ],
            limit=1,
            description="1 uses up the budget of 30 days in 30 days: 5 % of outcomes slower than 0.2 s.",
        ),
    ],
)

VERDICTS = Row(
    "Verdicts",
    [
        Panel(
            "Dedup hit ratio",
            [
                Query(
                    f"{rate('flk_dedup_hits_total')} / {rate('flk_verify_seconds_count')}",
                    "replayed / answered",
                )
            ],
            unit="percentunit",
            limit=DEDUP_GOAL,
            red_below=True,
            description="The goal of 40 % is for sources that replay.",
        ),
        Panel(
            "Escalations, by reason",
            [Query(rate("flk_escalated_reason_total", by="reason"), "{{reason}}")],
            unit="reqps",
            description="One record may have several reasons.",
        ),
        Panel(
            "Budget burn: escalations",
            [
                Query(
                    f"job:flk_escalated:ratio_rate{window}{{{JOB}}} / {ESCALATION_BUDGET}",
                    f"{{{{job}}}} {window}",
                )
                for window in ("5m", "1h", "6h", "1d")
            ],
            limit=1,
            description="1 uses up the budget of a day in a day: 2 % of the records submitted.",
        ),
        Panel(
            "Conflicts",
            [Query(rate("flk_conflicts_total", by="instance"), "{{instance}}")],
            unit="reqps",
            description="Known ids that came with other contents.",
        ),
        Panel(
            "Received minus sent_at",
            percentiles("flk_sent_at_skew_seconds"),
            unit="s",
            from_zero=False,
            description="Clock skew and time in outboxes. It changes no verdict.",
        ),
        Panel(
            "Keys in force, and whether they are stale",
            [gauge("flk_keys", "{{instance}} keys"), gauge("flk_keys_stale", "{{instance}} stale")],
        ),
    ],
)

DISK = Row(
    "WAL and disk",
    [
        Panel("WAL size", [gauge("flk_wal_size_bytes")], unit="bytes"),
        Panel("Time of a write and sync", percentiles("flk_wal_sync_seconds"), unit="s"),
        Panel(
            "Free space and watermark",
            [
                gauge("flk_disk_free_bytes", "{{instance}} free"),
                gauge("flk_disk_free_min_bytes", "{{instance}} watermark"),
            ],
            unit="bytes",
        ),
    ],
)

STORE = Row(
    "Store and backlog",
    [
        Panel("Store answers", [gauge("flk_store_up")], unit="bool_yes_no"),
        Panel("Time of a call of the store", percentiles("flk_store_seconds"), unit="s"),
        Panel(
            "Requests without an outcome",
            [
                gauge("flk_open_requests", "{{instance}} open"),
                gauge("flk_backlog_requests", "{{instance}} wait to be judged again"),
            ],
        ),
        Panel(
            "Requests left for somebody to decide",
            [
                gauge("flk_unreadable_requests", "{{instance}} unreadable"),
                gauge("flk_too_old_requests", "{{instance}} too old"),
            ],
        ),
    ],
)

CALIBRATION = Row(
    "Calibration",
    [
        Panel(
            "Decisions of the gate",
            [Query(rate("flk_decisions_total", by="decision"), "{{decision}}")],
            unit="reqps",
            description="First outcomes. None while the gate is off.",
        ),
        Panel(
            "Decisions without a class of the tenant's own set",
            [Query(rate("flk_calibration_fallbacks_total", by="class, to"), "{{class}}: {{to}}")],
            unit="reqps",
            description="The global set stood in, or there was no threshold of that class.",
        ),
        Panel(
            "Sets in force: scores",
            [gauge("flk_calibration_set_scores", "{{scope}} {{class}}")],
            description="Fewer than 100 give no threshold.",
        ),
        Panel(
            "Sets in force: version",
            [gauge("flk_calibration_set_version", "{{scope}}")],
        ),
        Panel(
            "Sets in force: age",
            [gauge("flk_calibration_set_age_seconds", "{{scope}}")],
            unit="s",
            description="Since the set was made. Due after a week unless set otherwise.",
        ),
        Panel(
            "Drift: distance of late scores from the set's, and its chance",
            [
                gauge("flk_calibration_ks_distance", "{{tenant}} distance"),
                gauge("flk_calibration_ks_p", "{{tenant}} chance"),
            ],
            description="Drift is a distance above 0.1 with a chance below 0.05, unless set otherwise.",
        ),
        Panel(
            "Drift: evidence of the martingale",
            [gauge("flk_calibration_martingale_log10", "{{tenant}}")],
            limit=2,
            from_zero=False,
            description="Decimal logarithm. 2 is reached without drift in at most 1 % of starts, for all time.",
        ),
        Panel(
            "Drift: alarms",
            [gauge("flk_calibration_drift", "{{tenant}} {{monitor}}")],
            unit="bool_yes_no",
        ),
        Panel(
            "Errors among labelled records, and the exact interval",
            [
                gauge("flk_calibration_error_rate", "{{scope}} {{class}}"),
                gauge("flk_calibration_error_rate_low", "{{scope}} {{class}} at least"),
                gauge("flk_calibration_error_rate_high", "{{scope}} {{class}} at most"),
            ],
            unit="percentunit",
            description="Benign records that were rejected, bad ones that were accepted. Promised: alpha, delta.",
        ),
        Panel(
            "Labels behind it, and whether the promise is broken",
            [
                gauge("flk_calibration_error_labels", "{{scope}} {{class}} labels"),
                gauge("flk_calibration_miscoverage", "{{scope}} {{class}} broken"),
            ],
        ),
        Panel(
            "Alarms, restarts and new sets in the time shown",
            [
                Query(increase("flk_calibration_alarms_total", by="monitor"), "alarms: {{monitor}}"),
                Query(
                    increase("flk_calibration_martingale_restarts_total", by="reason"),
                    "martingale restarts: {{reason}}",
                ),
                Query(
                    increase("flk_calibration_recalibrations_total", by="trigger"), "new sets: {{trigger}}"
                ),
            ],
            kind="stat",
        ),
        Panel(
            "Sets that are due and not replaced",
            [gauge("flk_calibration_due", "{{trigger}}")],
        ),
        Panel(
            "Scores that the monitors did not look at",
            [Query(rate("flk_calibration_scores_skipped_total", by="instance"), "{{instance}}")],
            unit="reqps",
            description="Beyond 1,000 a second, 200 of a tenant, or 200 tenants.",
        ),
    ],
)

BACKEND = Dashboard(
    uid="pcs-backend",
    title="PCS backend",
    description="Rates, latency, verdicts, calibration, WAL and store of pcs-backend.",
    choices=[Choice("job", "flk_ready"), Choice("instance", 'flk_ready{job=~"$job"}')],
    rows=[NOW, TRAFFIC, LATENCY, VERDICTS, CALIBRATION, DISK, STORE],
)


def by_tenant(title: str, expr: str, unit: str = "reqps", limit: float | None = None) -> Panel:
    """Return a panel with a line a tenant."""
    return Panel(f"{title}, by tenant", [Query(expr, "{{tenant}}")], unit=unit, limit=limit, width=12)


_ESCALATED, _ACCEPTED, _REPLAYED = (
    rate(f"flk_tenant_{name}_total", TENANT, by="tenant") for name in ("escalated", "accepted", "dedup_hits")
)

TENANTS = Dashboard(
    uid="pcs-tenants",
    title="PCS tenants",
    description="The same by tenant. Beyond 200 tenants the others are counted together as `_other`.",
    choices=[*BACKEND.choices, Choice("tenant", 'flk_tenant_accepted_total{job=~"$job"}')],
    rows=[
        Row(
            "By tenant",
            [
                by_tenant("Accepted", _ACCEPTED),
                by_tenant("Escalated", _ESCALATED),
                by_tenant(
                    "Escalated share",
                    f"{_ESCALATED} / ({_ESCALATED} + {_ACCEPTED})",
                    "percentunit",
                    ESCALATION_BUDGET,
                ),
                by_tenant(
                    "Dedup hit ratio",
                    f"{_REPLAYED} / ({_REPLAYED} + {_ACCEPTED} + {_ESCALATED})",
                    "percentunit",
                ),
                by_tenant("Replayed", _REPLAYED),
                by_tenant("Beyond rate or quota", rate("flk_tenant_limited_total", TENANT, by="tenant")),
            ],
        )
    ],
)

DASHBOARDS = (BACKEND, TENANTS)


def rendered() -> dict[str, str]:
    """Return every file that `make dashboards` writes, by name."""
    return {
        f"{dashboard.uid}.json": json.dumps(render(dashboard), indent=2, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
