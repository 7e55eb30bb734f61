"""`pcs-agent verify`: check a record offline."""

from __future__ import annotations

import click
import msgspec
from rich.text import Text

from pcs_agent.cli.options import json_option, key_file_option, read_config, standard_input
from pcs_agent.cli.output import print_json, print_table
from pcs_agent.errors import InputError
from pcs_agent.events import STANDARD_INPUT
from pcs_agent.streams import print_text
from pcs_agent.verification import RECORD_BYTES_MAX, Finding, check_record
from pcs_agent.wording import display_name
from pcs_core.direction_proof import Directions

# What a check is called that may hold; its reason code, in --json and where it failed, says that it did not.
_NAMES = {
    "slope_out_of_tolerance": "slope",
    "coherence_out_of_bounds": "coherence",
    "compressibility_out_of_bounds": "compressibility",
    "counts_not_monotone": "counts",
    "regime_mismatch": "regime",
    "budget_mismatch": "budget",
    "degraded": "complete",
    "direction_proof": "directions",
    "direction_proof_invalid": "directions",
    "direction_seed_mismatch": "directions",
    "direction_proof_missing": "directions",
}
_MARKS = {True: ("ok", "green"), False: ("FAILED", "red"), None: ("-", "yellow")}


@click.command()
@click.argument("file")
@key_file_option
@json_option
def verify(*, file: str, key_file: str | None, as_json: bool) -> None:
    """Check the record in FILE offline and say what fails.

    Structure, identity, signature if a key is configured, and every check the backend makes. FILE may be - for standard
    input. With Ed25519 the key file may hold the public half alone. A proof of directions is checked with
    PCS_VRF_PUB_B64 or PCS_VRF_SECRET_B64.

    \b
    Exit codes:
      0  every check held
      1  a check failed
      2  usage, input or configuration

    \b
    Examples:
      pcs-agent verify record.json
      pcs-agent build events.csv --shard-id s1 --epoch 0 | pcs-agent verify - --json
    """  # noqa: D301  # \b is click's
    config = read_config(key_file)
    finding = check_record(
        _read(file), config.verification_keys, config.params, Directions(config.direction_keys)
    )
    if as_json:
        print_json(msgspec.to_builtins(finding))
    else:
        _print(finding)
    click.get_current_context().exit(0 if finding.ok else 1)


def _read(file: str) -> bytes:
    if file == STANDARD_INPUT:
        return standard_input().read(RECORD_BYTES_MAX + 1)
    name = display_name(file)
    try:
        with open(file, "rb") as stream:
            return stream.read(RECORD_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "not a file name"
    raise InputError(f"{name}: cannot be read: {problem}")


def _print(finding: Finding) -> None:
    rows: list[list[str | Text]] = []
    for check in finding.checks:
        mark, style = _MARKS[check.ok]
        name = _NAMES.get(check.check, check.check)
        code = f"{check.check}: " if check.ok is False and name != check.check else ""
        rows.append([name, Text(mark, style=style), code + check.detail])
    print_table(("check", "result", "detail"), rows)
    if finding.recomputed is not None:
        own = finding.recomputed
        print_text(f"recomputed: D_hat {own.d_hat}, regime {own.regime}, budget {own.budget}")
    print_text("verified" if finding.ok else "not verified")
