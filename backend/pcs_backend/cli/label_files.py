"""`pcs-backend calibrate export|import`: labels as NDJSON.

An exported line is whole: it has the signals, and goes into any store as it is. A line without signals is one as the
service takes it, and its outcome is looked up in this store.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, NamedTuple

import click
import msgspec
import orjson
import uvloop

from pcs_backend.cli.calibrations import Reached, reach
from pcs_backend.cli.folder import prepare
from pcs_backend.conformal.labelling import LABEL_LINES_MAX, Labeller, Labelling, is_whole, read_whole
from pcs_backend.exchange import Reply
from pcs_backend.problems import malformed_reply
from pcs_core.errors import MalformedError

EXPORT_LABELS_MAX = 100_000
"""Labels of a class that one export holds; of all tenants together there may be more."""

LABEL_LINE_BYTES_MAX = 16_384

_LABELLER = Labeller("command line", None)
_encode = msgspec.json.Encoder().encode


class _Imported(NamedTuple):
    """What became of a file's lines: how many were taken, and of each other one its number and why."""

    taken: int
    refused: list[tuple[int, str]]


@click.command(
    "export",
    epilog="""
\b
Examples:
  pcs-backend calibrate export > labels.ndjson
  pcs-backend calibrate export --tenant plants | jq -r .label | sort | uniq -c
""",
)
@click.option("--tenant", metavar="NAME", help="Of one tenant; of all if left out.")
def export_labels(tenant: str | None) -> None:
    """Print labels with their signals, newest first, as NDJSON."""
    config = prepare()

    async def ask() -> list[bytes]:
        async with reach(config) as reached:
            labels = await reached.calibrations.list_labels(tenant, since_ms=0, limit=EXPORT_LABELS_MAX)
            return [_encode(each) for each in labels]

    for line in uvloop.run(ask()):
        click.echo(line)


@click.command(
    "import",
    epilog="""
\b
Examples:
  pcs-backend calibrate import labels.ndjson
  ssh other pcs-backend calibrate export | pcs-backend calibrate import -
\b
Exit code 1 if a line was refused; the others are taken all the same.
""",
)
@click.argument("file", type=click.File("rb"))
def import_labels(file: IO[bytes]) -> None:
    """Take labels from a file of NDJSON, or from standard input (-)."""
    config = prepare()

    async def put() -> _Imported:
        async with reach(config) as reached:
            return await _import(reached, file)

    imported = uvloop.run(put())
    for number, why in imported.refused:
        click.echo(f"line {number}: {why}", err=True)
    click.echo(f"{imported.taken} taken, {len(imported.refused)} refused")
    if imported.refused:
        raise SystemExit(1)


async def _import(reached: Reached, file: IO[bytes]) -> _Imported:
    labelling = Labelling(reached.get, reached.calibrations, time.time)
    taken = 0
    refused = []
    for part in _parts(_lines(file)):
        replies = await _take(reached, labelling, [line for _, line in part])
        for (number, _), reply in zip(part, replies, strict=True):
            if reply is None or reply.status == 200:
                taken += 1
            else:
                refused.append((number, orjson.loads(reply.body)["detail"]))
    return _Imported(taken, refused)


async def _take(reached: Reached, labelling: Labelling, lines: list[bytes]) -> list[Reply | None]:
    """Take some lines; returns what became of each, `None` for one that was whole."""
    replies: dict[int, Reply | None] = {}
    whole = {}
    for position, line in enumerate(lines):
        if is_whole(line):
            try:
                label = read_whole(line)
                whole[label.tenant, label.pcs_id] = label
                replies[position] = None
            except MalformedError as error:
                replies[position] = malformed_reply(error)
    said = [position for position in range(len(lines)) if position not in replies]
    if whole:
        await reached.calibrations.put_labels(list(whole.values()))
    if said:
        answers = await labelling.take([lines[position] for position in said], _LABELLER)
        replies |= dict(zip(said, answers, strict=True))
    return [replies[position] for position in range(len(lines))]


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers. What is longer than allowed comes in pieces."""
    number = 0
    while line := file.readline(LABEL_LINE_BYTES_MAX):
        number += 1
        if not line.isspace():
            yield number, line


def _parts(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    iterator = iter(lines)
    while part := list(islice(iterator, LABEL_LINES_MAX)):
        yield part
