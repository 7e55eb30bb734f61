"""How `calibrate` shows sets, what they were made of, and what came into force."""

from __future__ import annotations

from typing import Any

import click
import msgspec
import orjson
from msgspec import UNSET

from pcs_backend.cli.tables import Row, iso_time, print_table
from pcs_backend.conformal.build import Built, ClassPart, Report
from pcs_backend.conformal.calibration import CalibrationSet, Promotion, decode_set
from pcs_backend.conformal.density_ratio import DensityRatio

HISTORY_COLUMNS = (
    "version",
    "promoted_at",
    "by",
    "benign",
    "bad",
    "score",
    "method",
    "alpha",
    "delta",
    "weighed_by",
    "trigger",
    "note",
    "digest",
)


def show_report(found: Report, *, as_json: bool) -> None:
    """Print a report."""
    if as_json:
        click.echo(orjson.dumps({"scope": found.scope} | _summary(found)))
        return
    show_parts(found.built)
    if found.built.why_none:
        click.echo(f"no set can be made: {found.built.why_none}")
    click.echo()
    click.echo(_split("as a set is made", found.built))
    if found.built.benign.picked + found.built.bad.picked == 0:
        click.echo("no record was picked by its verdict")
        return
    click.echo(_split("with records picked by their verdicts", found.with_picked))
    click.echo("A record that was picked by its verdict is not like the others, so no set counts it.")


def _split(what: str, built: Built) -> str:
    benign, bad = built.benign, built.bad
    return (
        f"{what}: {benign.scores} benign and {bad.scores} bad scores; "
        f"threshold of benign {_number(benign.threshold)}, of bad {_number(bad.threshold)}"
    )


def _summary(found: Report) -> dict[str, Any]:  # Any: members of a JSON object
    return {
        name: {
            "benign": msgspec.to_builtins(built.benign),
            "bad": msgspec.to_builtins(built.bad),
            "why_none": built.why_none,
        }
        for name, built in (("built", found.built), ("with_picked", found.with_picked))
    }


def show_parts(built: Built) -> None:
    """Print what became of the labels of each class."""
    columns = ("class", "scores", "threshold", "picked", "outdated", "fitting", "dropped", "why_none")
    print_table([_part_row("benign", built.benign), _part_row("bad", built.bad)], columns)


def show_pieces(built: Built, ratio: DensityRatio) -> None:
    """Print the thresholds of each piece of a density ratio. A class without any has none in a piece either."""
    edges = [f"{edge:g}" for edge in ratio.edges]
    rows = [
        {
            ratio.signal: f"{low} to {high}",
            "weight": f"{weight:g}",
            **{
                name: _number(part.thresholds[piece] if part.thresholds else None)
                for name, part in (("benign", built.benign), ("bad", built.bad))
            },
        }
        for piece, (low, high, weight) in enumerate(
            zip(["-inf", *edges], [*edges, "inf"], ratio.ratios, strict=True)
        )
    ]
    click.echo()
    print_table(rows, (ratio.signal, "weight", "benign", "bad"))


def _part_row(label: str, part: ClassPart) -> Row:
    return {
        "class": label,
        "scores": str(part.scores),
        "threshold": "below" if part.thresholds else _number(part.threshold),
        "picked": str(part.picked),
        "outdated": str(part.outdated),
        "fitting": str(part.fitting),
        "dropped": str(part.dropped),
        "why_none": part.why_none or "-",
    }


def _number(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:g}"


def sizes_of(made: CalibrationSet) -> str:
    """Return how many scores a set has, and what they are weighed by."""
    weighed = "" if made.weighting is UNSET else f" weighed by {made.weighting.ratio.signal}"
    return f"{len(made.benign)} benign and {len(made.bad)} bad scores{weighed}"


def history_row(promotion: Promotion, kept: bytes | None) -> dict[str, Any]:  # Any: one JSON object
    """Return a promotion with what its set is.

    Args:
        promotion: The promotion.
        kept: Its set's bytes; `None` if they are not kept any more.
    """
    row: dict[str, Any] = {
        "version": promotion.version,
        "promoted_at": iso_time(promotion.promoted_at_ms),
        "by": promotion.by or "the service",
        "note": promotion.note,
        "digest": promotion.digest,
    }
    names = ("benign", "bad", "score", "method", "alpha", "delta", "weighed_by", "trigger")
    if kept is None:  # it went with the last outcome that could name it
        return row | dict.fromkeys(names, "gone")
    made = decode_set(kept)
    values = (
        len(made.benign),
        len(made.bad),
        made.score,
        made.method,
        made.alpha,
        made.delta,
        "-" if made.weighting is UNSET else made.weighting.ratio.signal,
        made.trigger,
    )
    return row | dict(zip(names, values, strict=True))


def say_promoted(promotion: Promotion) -> None:
    """Print what came into force."""
    scope = f"tenant {promotion.scope}" if promotion.scope else "all tenants"
    click.echo(f"version {promotion.version} is in force for {scope}: {promotion.digest}")
