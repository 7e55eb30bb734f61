"""`pcs-backend calibrate`: what labels come to, and which sets are in force."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable
from typing import IO, TypeVar

import click
import orjson
import uvloop

from pcs_backend.cli.calibration_tables import (
    HISTORY_COLUMNS,
    history_row,
    say_promoted,
    show_parts,
    show_pieces,
    show_report,
    sizes_of,
)
from pcs_backend.cli.calibrations import reach
from pcs_backend.cli.folder import prepare
from pcs_backend.cli.label_files import export_labels, import_labels
from pcs_backend.cli.tables import print_table
from pcs_backend.config import Config
from pcs_backend.conformal.build import Report, build_set, lost_classes, report
from pcs_backend.conformal.calibration import GLOBAL_SCOPE, Labelled, Promotion
from pcs_backend.conformal.density_ratio import RATIO_BYTES_MAX, DensityRatio, read_density_ratio
from pcs_backend.conformal.promotion import (
    PromotionError,
    promote_set,
    set_in_force,
    set_to_return_to,
)
from pcs_backend.conformal.store import LABELS_MAX, PROMOTIONS_MAX, Calibrations
from pcs_core.keyring import DEFAULT_TENANT

WORD_CHARACTERS_MAX = 256
"""Of who brings a set into force, and of why; every process reads both again and again."""

_Command = TypeVar("_Command", bound=Callable[..., None])


def _user() -> str:
    """Return who runs the command, as the system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return "unknown"


def _scope_options(command: _Command) -> _Command:
    tenant = click.option("--tenant", metavar="NAME", help=f"Of which tenant.  [default: {DEFAULT_TENANT}]")
    everybody = click.option("--global", "is_global", is_flag=True, help="Of all tenants together.")
    return tenant(everybody(command))


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
_by_option = click.option("--by", default=_user, show_default="the user", metavar="NAME", help="Who does it.")


@click.group()
def calibrate() -> None:
    """Make calibration sets of labels, and bring them into force."""


@calibrate.command(
    "report",
    epilog="""
\b
Examples:
  pcs-backend calibrate report --global
""",
)
@_scope_options
@_json_option
def report_command(tenant: str | None, *, is_global: bool, as_json: bool) -> None:
    """Say what the labels come to, and what records picked by their verdicts would do to it."""
    config, scope = prepare(), _scope(tenant, is_global=is_global)

    async def ask() -> Report:
        async with reach(config) as reached:
            labels = await _labels(reached.calibrations, scope)
        now_ms = _now_ms()
        return report(
            labels, scope=scope, settings=config.build_settings, params=config.params, now_ms=now_ms
        )

    show_report(uvloop.run(ask()), as_json=as_json)


@calibrate.command(
    epilog="""
\b
Examples:
  pcs-backend calibrate promote --dry-run
  pcs-backend calibrate promote --global --note "first set"
  pcs-backend calibrate promote --density-ratio ratio.json --dry-run
\b
Exit code 1 if no set can be made, or if it would lose a guarantee that the set in force gives.
"""
)
@_scope_options
@click.option("--dry-run", is_flag=True, help="Say what would come into force, and change nothing.")
@click.option(
    "--density-ratio",
    type=click.File("rb"),
    metavar="FILE",
    help="How much more often records come now than when they were labelled, by a signal: JSON, or - for standard input.",
)
@click.option("--allow-missing", is_flag=True, help="Also if a class then has no threshold that has one now.")
@_by_option
@click.option("--note", default="", metavar="TEXT", help="Why, in a few words.")
def promote(
    tenant: str | None,
    *,
    is_global: bool,
    dry_run: bool,
    density_ratio: IO[bytes] | None,
    allow_missing: bool,
    by: str,
    note: str,
) -> None:
    """Make a set of the labels, and bring it into force."""
    config, scope = prepare(), _scope(tenant, is_global=is_global)
    _check_words(by, note)
    ratio = None if density_ratio is None else read_density_ratio(density_ratio.read(RATIO_BYTES_MAX + 1))
    uvloop.run(_promote(config, scope, ratio, by, note, dry_run=dry_run, allow_missing=allow_missing))


@calibrate.command(
    epilog="""
\b
Examples:
  pcs-backend calibrate rollback
  pcs-backend calibrate rollback --to 3 --note "version 4 refused too much"
\b
Going back is a promotion of its own: versions go on counting. Version 0 is no set at all.
"""
)
@_scope_options
@click.option(
    "--to",
    type=click.IntRange(0),
    metavar="VERSION",
    help="Whose set; that of the version before, if left out.",
)
@_by_option
@click.option("--note", default="", metavar="TEXT", help="Why, in a few words.")
def rollback(tenant: str | None, *, is_global: bool, to: int | None, by: str, note: str) -> None:
    """Bring an earlier set into force again."""
    config, scope = prepare(), _scope(tenant, is_global=is_global)
    _check_words(by, note)

    async def go_back() -> Promotion:
        async with reach(config) as reached:
            store, now_ms = reached.calibrations, _now_ms()
            wanted, version = await set_to_return_to(store, scope, to, now_ms)
            why = note or f"back to version {version}"
            return await promote_set(store, wanted, by=by, note=why, now_ms=now_ms)

    say_promoted(uvloop.run(go_back()))


@calibrate.command(
    epilog="""
\b
Examples:
  pcs-backend calibrate history --global --json
"""
)
@_scope_options
@click.option(
    "--limit",
    type=click.IntRange(1, PROMOTIONS_MAX),
    default=20,
    show_default=True,
    help="Promotions at most.",
)
@_json_option
def history(tenant: str | None, *, is_global: bool, limit: int, as_json: bool) -> None:
    """List what came into force, newest first."""
    config, scope = prepare(), _scope(tenant, is_global=is_global)

    async def ask() -> tuple[list[Promotion], list[bytes | None]]:
        async with reach(config) as reached:
            promotions = await reached.calibrations.list_promotions(scope, limit)
            digests = [each.digest for each in promotions]
            return promotions, await reached.calibrations.fetch(digests)

    rows = [history_row(*each) for each in zip(*uvloop.run(ask()), strict=True)]
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row))
        return
    print_table([{name: str(row[name]) for name in HISTORY_COLUMNS} for row in rows], HISTORY_COLUMNS)


calibrate.add_command(export_labels)
calibrate.add_command(import_labels)


async def _promote(
    config: Config,
    scope: str,
    ratio: DensityRatio | None,
    by: str,
    note: str,
    *,
    dry_run: bool,
    allow_missing: bool,
) -> None:
    async with reach(config) as reached:
        store, now_ms = reached.calibrations, _now_ms()
        made = build_set(
            await _labels(store, scope),
            scope=scope,
            settings=config.build_settings,
            params=config.params,
            now_ms=now_ms,
            trigger="by_hand",
            density_ratio=ratio,
        )
        current = await set_in_force(store, scope)
        show_parts(made)
        if ratio is not None and made.calibration_set is not None:
            show_pieces(made, ratio)
        if current is not None:
            click.echo(
                f"in force: version {current[0].version}, {sizes_of(current[1])}, digest {current[0].digest}"
            )
        if made.calibration_set is None:
            raise PromotionError(f"no set can be made: {made.why_none}")
        lost = () if current is None else lost_classes(current[1], made.calibration_set)
        if lost and not allow_missing:
            raise PromotionError(
                f"the set in force has a threshold from {' and '.join(lost)} records and this one would have none; "
                "--allow-missing promotes it all the same"
            )
        if dry_run:
            click.echo(f"would come into force: {sizes_of(made.calibration_set)}; nothing was changed")
            return
        promotion = await promote_set(store, made.calibration_set, by=by, note=note, now_ms=now_ms)
    say_promoted(promotion)


async def _labels(store: Calibrations, scope: str) -> list[Labelled]:
    return await store.list_labels(scope or None, since_ms=0, limit=LABELS_MAX)


def _scope(tenant: str | None, *, is_global: bool) -> str:
    if is_global and tenant is not None:
        raise click.UsageError("--tenant: found one beside --global; allowed: one of the two")
    return GLOBAL_SCOPE if is_global else tenant or DEFAULT_TENANT


def _check_words(by: str, note: str) -> None:
    for name, text in (("--by", by), ("--note", note)):
        if len(text) > WORD_CHARACTERS_MAX or not text.isprintable():
            raise click.UsageError(
                f"{name}: found {len(text)} characters; allowed: up to {WORD_CHARACTERS_MAX} that can be printed"
            )


def _now_ms() -> int:
    return int(time.time() * 1_000)
