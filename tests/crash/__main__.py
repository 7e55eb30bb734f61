"""`python -m crash`: cuts power, or kills, under load, and counts what was lost or doubled.

The last line reads `cuts N acknowledged N lost N doubled N`. Exit codes: 0 nothing was lost or doubled; 1 something was;
2 the run has no result.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from crash.image import Folder, Image, ImageError, why_unavailable
from crash.ledger import Tally
from crash.life import LifeError
from crash.load import Supply
from crash.mutants import MUTANTS
from crash.plan import MEMORY_PLACES, STORE_PLACES, Deck, Place
from crash.track import CutRecord, Track
from servers import PostgresServer

POSTGRES_EVERY = 4
"""Every so many cuts PostgreSQL's data lies on the disk too."""

VOID_SHARE_MAX = 0.5
"""Cuts that may turn out not to count, for too little load, as a share of those that are wanted."""

_INSIDE = "PCS_CRASH_INSIDE"


class Bench:
    """The disks, each with its service and perhaps its database, made when first needed."""

    def __init__(self, arguments: argparse.Namespace, tally: Tally, stack: contextlib.ExitStack) -> None:
        self._arguments = arguments
        self._tally = tally
        self._stack = stack
        self._supply = Supply()
        self._scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pcs-crash-")))
        self._tracks: dict[bool, Track] = {}
        self.deck = Deck(random.Random(arguments.seed))

    def track(self, *, with_postgres: bool) -> Track:
        """Return the service over that kind of store."""
        if with_postgres not in self._tracks:
            disk = self._stack.enter_context(Image() if self._arguments.level == "power" else Folder())
            if self._arguments.verbose:
                print(f"disk {disk.path} {disk.device}", file=sys.stderr, flush=True)
            server = None
            if with_postgres:
                server = self._stack.enter_context(PostgresServer(disk.path / "postgres"))
            self._tracks[with_postgres] = Track(
                disk,
                postgres=server,
                deck=self.deck,
                supply=self._supply,
                tally=self._tally,
                mutant=self._arguments.mutant,
                scratch=self._scratch,
            )
        return self._tracks[with_postgres]

    async def finish(self) -> None:
        """Check everything once more."""
        for track in self._tracks.values():
            await track.finish()

    async def close(self) -> None:
        """End what still runs: it holds files on the disks, which are taken down next."""
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        for track in self._tracks.values():
            await track.close()


async def run(arguments: argparse.Namespace, report: list[CutRecord], tally: Tally) -> None:
    """Cut as often as wanted."""
    with contextlib.ExitStack() as stack:
        bench = Bench(arguments, tally, stack)
        try:
            await _cut_all(arguments, bench, report, tally)
            await bench.finish()
        finally:
            await bench.close()


async def _cut_all(
    arguments: argparse.Namespace, bench: Bench, report: list[CutRecord], tally: Tally
) -> None:
    while (done := sum(cut.counts for cut in report)) < arguments.cuts:
        with_postgres = arguments.postgres and done % POSTGRES_EVERY == 0
        places = STORE_PLACES if with_postgres else MEMORY_PLACES
        place = Place(arguments.place) if arguments.place else bench.deck.next_place(places)
        begun_s = time.monotonic()
        cut = await bench.track(with_postgres=with_postgres).cut(place)
        if arguments.verbose:
            store = "postgres" if with_postgres else "memory"
            print(f"{time.monotonic() - begun_s:5.2f} s  {store:8}  {cut}", file=sys.stderr, flush=True)
        report.append(cut)
        if len(report) - done > max(2, VOID_SHARE_MAX * arguments.cuts):
            raise LifeError(f"too little load: {cut}")
        if arguments.stop_at_loss and tally.lost + tally.doubled:
            break


def print_report(arguments: argparse.Namespace, report: Sequence[CutRecord], tally: Tally) -> None:
    """Print the cuts by place, then what was found, then the sum."""
    print(f"level {arguments.level}, seed {arguments.seed}")
    print(
        f"{'place':<20}  {'cuts':>4}  {'acknowledged':>12}  {'least under load':>16}  {'least in flight':>15}"
    )
    counted = [cut for cut in report if cut.counts]
    for place in Place:
        if cuts := [cut for cut in counted if cut.place is place]:
            sums = (len(cuts), sum(cut.settled for cut in cuts))
            least = (min(cut.acknowledged for cut in cuts), min(cut.in_flight for cut in cuts))
            print(f"{place:<20}  {sums[0]:>4}  {sums[1]:>12}  {least[0]:>16}  {least[1]:>15}")
    rest = tally.acknowledged - sum(cut.settled for cut in counted)
    print(f"{'last check':<20}  {'':>4}  {rest:>12}")
    if voids := len(report) - len(counted):
        print(f"{voids} more did not count: too little load, or the place was not reached")
    for complaint, count in tally.complaints.most_common():
        print(f"{count} {complaint}")
    print(
        f"cuts {len(counted)} acknowledged {tally.acknowledged} lost {tally.lost} doubled {tally.doubled}",
        flush=True,
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="crash", description=__doc__)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--level", choices=("power", "kill"), default="power")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--place", choices=[str(place) for place in Place], help="cut here alone")
    parser.add_argument("--no-postgres", dest="postgres", action="store_false")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="break the product on purpose")
    parser.add_argument("--stop-at-loss", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args(arguments)


def main() -> int:
    """Run; on power level in namespaces of its own, so that mounts and processes go whatever ends the run."""
    arguments = parse(sys.argv[1:])
    if arguments.level == "power" and _INSIDE not in os.environ:
        if reason := why_unavailable():
            print(f"the power cut cannot run here: {reason}", file=sys.stderr)
            return 2
        os.environ[_INSIDE] = "1"
        shell = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp(
            shell[0], [*shell, sys.executable, "-m", "crash", *sys.argv[1:], f"--seed={arguments.seed}"]
        )
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # SIGINT is ignored where this was started in the background
        signal.signal(number, signal.default_int_handler)
    report: list[CutRecord] = []
    tally = Tally()
    problem = ""
    try:
        uvloop.run(run(arguments, report, tally))
    except (LifeError, ImageError) as error:
        problem = f"no result: {error}"
    except KeyboardInterrupt:
        problem = "no result: interrupted"
    print_report(arguments, report, tally)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    return 1 if tally.lost or tally.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
