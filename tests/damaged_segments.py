"""Damaged sealed segments by the thousand: is each found, and is everything good around the damage recovered?

Segments are laid out by `pcs_logs`, which shares no code with the log. Each damage is drawn from a seed and told apart
from its like by number, so that a failure can be looked at alone. Most are byte strings through the shipped
`SegmentScan`; a share goes through files and `Wal.open`, where the opening must succeed, new frames must be taken, a second
opening must find the same, and a repair must leave a log without damage and with every good frame.

    python tests/damaged_segments.py --damages 100000 --files 2000 --seed 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pcs_core.wal import Damage, Frame, NewFrame, PosixFiles, check_log, repair_log
from pcs_core.wal.scan import SegmentScan
from pcs_logs import HEADER_BYTES, SALT, crc32c, opened, raw_frame, raw_segment_header

LOGS = 24
FRAMES_MIN, FRAMES_MAX = 3, 12
PAYLOAD_BYTES_MAX = 120
OTHER_SALT = b"othersal"
PROCESSES = 2


class Segment(NamedTuple):
    """A sealed segment as it should be.

    Attributes:
        first: First number it may hold.
        frames: Each with its number.
        pieces: The bytes of header, frames and seal.
    """

    first: int
    frames: list[tuple[int, NewFrame]]
    pieces: list[bytes]

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def starts(self) -> list[int]:
        """Where each piece begins, and where the last ends."""
        starts = [0]
        for piece in self.pieces:
            starts.append(starts[-1] + len(piece))
        return starts

    @property
    def next_first(self) -> int:
        return self.first + len(self.frames) + 1


Log = list[Segment]
Damager = Callable[[random.Random, Log, int], bytes]


def raw_seal(frames: Iterable[bytes], sequence: int) -> bytes:
    """Return the seal of a segment with these frames."""
    closing = [frame[-4:] for frame in frames]
    return raw_frame(
        NewFrame(0, b"", struct.pack("<QI", len(closing), crc32c(b"".join(closing)))), sequence, SALT
    )


def make_log(rng: random.Random) -> Log:
    """Return three sealed segments with payloads that look like parts of a log."""
    log: Log = []
    sequence = rng.choice((1, 1, rng.randrange(2, 2**40)))
    for _ in range(3):
        first = sequence
        frames, pieces = [], [raw_segment_header(first)]
        for _ in range(rng.randint(FRAMES_MIN, FRAMES_MAX)):
            frame = NewFrame(rng.randint(1, 255), rng.randbytes(rng.randint(0, 20)), make_payload(rng, log))
            frames.append((sequence, frame))
            pieces.append(raw_frame(frame, sequence))
            sequence += 1
        pieces.append(raw_seal(pieces[1:], sequence))
        sequence += 1
        log.append(Segment(first, frames, pieces))
    return log


def make_payload(rng: random.Random, log: Log) -> bytes:
    """Return bytes of any kind: noise, zeros, magic numbers, frames of this log and of another, seals, headers."""
    look_alikes = [
        b"PCSF",
        b"PCSF" * 8,
        b"PCSWAL01",
        bytes(40),
        raw_frame(NewFrame(1, b"e", b"forged"), rng.randrange(1, 99), OTHER_SALT),
        raw_frame(NewFrame(0, b"", bytes(12)), rng.randrange(1, 99), OTHER_SALT),
        raw_segment_header(1, OTHER_SALT),
        raw_segment_header(1),
    ]
    # Whole frames under the right salt, as in a backup of the log that was sent as a body.
    look_alikes += [piece for segment in log for piece in segment.pieces]
    size_bytes = rng.randint(0, PAYLOAD_BYTES_MAX)
    if rng.random() < 0.5:
        return rng.randbytes(size_bytes)
    return rng.randbytes(size_bytes // 4) + rng.choice(look_alikes) + rng.randbytes(size_bytes // 4)


# Kinds of damage. Each returns the damaged bytes of one segment of a log.


def some_range(rng: random.Random, size_bytes: int, longest: int) -> tuple[int, int]:
    """Return start and end of a range that is not empty."""
    length = rng.randint(1, min(longest, size_bytes))
    start = rng.randint(0, size_bytes - length)
    return start, start + length


def some_pieces(rng: random.Random, segment: Segment) -> tuple[int, int]:
    """Return start and end of a run of whole frames, the seal perhaps with them."""
    starts = segment.starts[1:]
    left, right = sorted(rng.sample(range(len(starts)), 2))
    return starts[left], starts[right]


def flip_bits(rng: random.Random, log: Log, index: int) -> bytes:
    data = bytearray(log[index].data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def overwrite(rng: random.Random, log: Log, index: int) -> bytes:
    data = log[index].data
    start, end = some_range(rng, len(data), 300)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def zero(rng: random.Random, log: Log, index: int) -> bytes:
    data = log[index].data
    start, end = some_range(rng, len(data), 600)
    return data[:start] + bytes(end - start) + data[end:]


def truncate(rng: random.Random, log: Log, index: int) -> bytes:
    data = log[index].data
    if rng.random() < 0.3:
        return data[: rng.choice(log[index].starts[:-1])]
    return data[: rng.randrange(len(data))]


def cut_out(rng: random.Random, log: Log, index: int) -> bytes:
    data = log[index].data
    aligned = rng.random() < 0.4
    start, end = some_pieces(rng, log[index]) if aligned else some_range(rng, len(data), 400)
    return data[:start] + data[end:]


def duplicate(rng: random.Random, log: Log, index: int) -> bytes:
    data = log[index].data
    if rng.random() < 0.5:
        start, end = some_pieces(rng, log[index])
        place = rng.choice(log[index].starts[1:])
    else:
        start, end = some_range(rng, len(data), 400)
        place = rng.randint(0, len(data))
    return data[:place] + data[start:end] + data[place:]


def write_over_elsewhere(rng: random.Random, log: Log, index: int) -> bytes:
    """A block of the segment written to the wrong place as well."""
    data = log[index].data
    start, end = some_range(rng, len(data), 400)
    place = rng.randint(0, len(data) - (end - start))
    return data[:place] + data[start:end] + data[place + end - start :]


def swap_frames(rng: random.Random, log: Log, index: int) -> bytes:
    pieces = list(log[index].pieces)
    left, right = rng.sample(range(1, len(pieces)), 2)
    pieces[left], pieces[right] = pieces[right], pieces[left]
    return b"".join(pieces)


def foreign_frames(rng: random.Random, log: Log, index: int) -> bytes:
    """Whole frames of another segment, or of another log, put in or in the place of one's own."""
    pieces = list(log[index].pieces)
    other = rng.choice([segment for segment in log if segment is not log[index]])
    source = rng.choice(
        (other.pieces[1:], [raw_frame(NewFrame(1, b"e", b"p"), log[index].first, OTHER_SALT)])
    )
    for _ in range(rng.randint(1, 3)):
        place = rng.randint(1, len(pieces))
        if rng.random() < 0.5:
            pieces.insert(place, rng.choice(source))
        else:
            pieces[place : place + 1] = [rng.choice(source)]
    return b"".join(pieces)


def damage_header(rng: random.Random, log: Log, index: int) -> bytes:
    data = log[index].data
    other = log[index - 1]
    headers = [
        rng.randbytes(HEADER_BYTES),
        bytes(HEADER_BYTES),
        raw_segment_header(log[index].first, OTHER_SALT),
        raw_segment_header(other.first),
        raw_segment_header(log[index].first + rng.choice((-1, 1, 2, 1000))),
    ]
    if rng.random() < 0.5:
        return rng.choice(headers) + data[HEADER_BYTES:]
    header = bytearray(data[:HEADER_BYTES])
    for _ in range(rng.randint(1, 4)):
        header[rng.randrange(HEADER_BYTES)] ^= rng.randint(1, 255)
    return bytes(header) + data[HEADER_BYTES:]


def damage_seal(rng: random.Random, log: Log, index: int) -> bytes:
    pieces = list(log[index].pieces)
    raw = pieces[1:-1]
    seal = bytearray(pieces[-1])
    seal[rng.randrange(len(seal))] ^= rng.randint(1, 255)
    number = log[index].next_first - 1
    endings = [
        bytes(seal),
        b"",
        pieces[-1] * 2,
        log[index - 1].pieces[-1],
        raw_seal(raw[:-1], number),
        raw_seal([*raw[:-1], raw[0]], number),
        raw_seal(raw, number + 1),
        pieces[-1] + rng.randbytes(rng.randint(1, 60)),
        pieces[-1] + raw[-1],
    ]
    return b"".join((*pieces[:-1], rng.choice(endings)))


KINDS: dict[str, Damager] = {
    "flipped bits": flip_bits,
    "overwritten": overwrite,
    "zeroed": zero,
    "truncated": truncate,
    "cut out": cut_out,
    "duplicated": duplicate,
    "written over": write_over_elsewhere,
    "swapped frames": swap_frames,
    "foreign frames": foreign_frames,
    "header": damage_header,
    "seal": damage_seal,
}


class Case(NamedTuple):
    """One damage."""

    number: int
    kind: str
    log: Log
    index: int
    data: bytes

    @property
    def segment(self) -> Segment:
        return self.log[self.index]

    @property
    def expected(self) -> list[tuple[int, NewFrame]]:
        """The frames whose bytes are all there still, wherever they stand."""
        pieces = self.segment.pieces[1:-1]
        self_and_others = [piece for segment in self.log for piece in segment.pieces[1:]]
        return [
            frame
            for frame, piece in zip(self.segment.frames, pieces, strict=True)
            if piece in self.data and not self._only_inside_another(piece, self_and_others)
        ]

    def _only_inside_another(self, piece: bytes, others: list[bytes]) -> bool:
        """Whether a frame's bytes are left in the payload of a whole frame alone, where they are payload."""
        rest = self.data
        for other in others:
            if other != piece and piece in other:
                rest = rest.replace(other, b"")
        return piece not in rest


def draw(seed: int, number: int, logs: list[Log]) -> Case:
    """Return damage `number`; the same for the same seed."""
    rng = random.Random(f"{seed} {number}")
    kind = list(KINDS)[number % len(KINDS)]
    log = rng.choice(logs)
    index = rng.randrange(len(log))
    data = log[index].data
    while data == log[index].data:  # zeros over zeros, a frame over itself: no damage
        data = KINDS[kind](rng, log, index)
    return Case(number, kind, log, index, data)


def make_logs(seed: int) -> list[Log]:
    rng = random.Random(f"logs {seed}")
    return [make_log(rng) for _ in range(LOGS)]


# Checks. Each returns what is wrong; nothing if all is well.


class Result(NamedTuple):
    """What became of one damage."""

    kind: str
    lost: int
    problem: str


def check_bytes(case: Case) -> Result:
    """Through `SegmentScan`."""
    segment = case.segment
    name = f"{segment.first:020d}.wal"
    scan = SegmentScan(
        name, case.data, SALT, segment.first, floor=segment.first - 1, next_first=segment.next_first
    )
    found = [as_written(each.frame) for each in scan]
    problem = ""
    if found != case.expected:
        problem = f"frames {numbers(found)}, not {numbers(case.expected)}"
    elif not scan.damages:
        problem = "not detected"
    elif not all(is_plausible(damage, case) for damage in scan.damages):
        problem = f"named wrongly: {scan.damages}"
    return Result(case.kind, len(segment.frames) - len(case.expected), problem)


def is_plausible(damage: Damage, case: Case) -> bool:
    """Whether what is reported lies in the file, and names it or a segment that is missing after it."""
    if damage.what == "segment missing":
        return damage.segment > f"{case.segment.first:020d}.wal"
    inside = 0 <= damage.offset <= damage.offset + damage.size_bytes <= len(case.data)
    return inside and damage.segment == f"{case.segment.first:020d}.wal"


def check_files(case: Case, folder: Path) -> Result:
    """Through files and `Wal.open`: opened, written to, opened again."""
    folder.mkdir()
    for index, segment in enumerate(case.log):
        data = case.data if index == case.index else segment.data
        (folder / f"{segment.first:020d}.wal").write_bytes(data)
    (folder / f"{case.log[-1].next_first:020d}.wal").write_bytes(raw_segment_header(case.log[-1].next_first))
    expected = [
        frame
        for index, segment in enumerate(case.log)
        for frame in (case.expected if index == case.index else segment.frames)
    ]
    new = NewFrame(1, b"new", b"taken after the damage")
    with opened(folder) as log:
        first = list(log.wal.damages)
        problem = "" if visited(log.visited) == expected else "frames are missing or too many"
        position = log.wal.commit([new])[0]
    kept = aside(folder)
    with opened(folder) as log:
        if visited(log.visited) != [*expected, (position.sequence, new)]:
            problem = problem or "the new frame or an old one is missing at the second opening"
        if log.wal.damages != first or aside(folder) != kept:
            problem = problem or "the second opening finds something else"
    problem = problem or problem_of_repair(folder, first, [*expected, (position.sequence, new)])
    if not first:
        problem = problem or "not detected"
    if position.sequence < case.log[-1].next_first:
        problem = problem or "a number was given twice"
    if not all(
        set(segment_bytes_of(damage, case, folder)) == {True} for damage in first if damage.size_bytes
    ):
        problem = problem or "the damaged bytes are not kept aside"
    return Result(case.kind, len(case.segment.frames) - len(case.expected), problem)


def problem_of_repair(folder: Path, damages: list[Damage], expected: list[tuple[int, NewFrame]]) -> str:
    """Return what is wrong with a check, a repair, and the log after it; nothing if all is well."""
    files = PosixFiles()
    if check_log(str(folder), files).all_damages != damages:
        return "the check finds something else than the opening"
    undone = [repair for repair in repair_log(str(folder), files) if not repair.done]
    if undone:
        return f"not repaired: {undone}"
    if repair_log(str(folder), files) or check_log(str(folder), files).all_damages:
        return "the second repair finds something left"
    with opened(folder) as log:
        if log.wal.damages or visited(log.visited) != expected:
            return "a frame was lost in the repair, or damage is left"
        if log.wal.commit([NewFrame(1, b"", b"after the repair")])[0].sequence <= expected[-1][0]:
            return "a number was given twice after the repair"
    return ""


def segment_bytes_of(damage: Damage, case: Case, folder: Path) -> Iterator[bool]:
    content = case.data[damage.offset : damage.offset + damage.size_bytes]
    name = f"{damage.segment}.{damage.offset}.{damage.size_bytes}."
    yield content in [data for key, data in aside(folder).items() if key.startswith(name)]


def aside(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "aside").glob("*")}


def as_written(frame: Frame) -> tuple[int, NewFrame]:
    return frame.sequence, NewFrame(frame.kind, frame.envelope, frame.payload)


def visited(found: list[tuple[object, Frame]]) -> list[tuple[int, NewFrame]]:
    return [as_written(frame) for _, frame in found]


def numbers(frames: list[tuple[int, NewFrame]]) -> list[int]:
    return [sequence for sequence, _ in frames]


# The run


class Tally(NamedTuple):
    """What a run found, by kind of damage."""

    damages: Counter[str]
    lost: Counter[str]
    problems: list[str]

    def add(self, other: Tally) -> None:
        self.damages.update(other.damages)
        self.lost.update(other.lost)
        self.problems.extend(other.problems)


def run_share(seed: int, first: int, end: int, files: int) -> Tally:
    """Check damages `first` to `end`, the first `files` of them through files too."""
    logs = make_logs(seed)
    tally = Tally(Counter(), Counter(), [])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, end):
            case = draw(seed, number, logs)
            results = [check_bytes(case)]
            if number - first < files:
                results.append(guarded(case, Path(folder) / str(number)))
            tally.damages[case.kind] += 1
            tally.lost[case.kind] += results[0].lost
            tally.problems.extend(
                f"seed {seed}, damage {number} ({case.kind}): {result.problem}"
                for result in results
                if result.problem
            )
    return tally


def guarded(case: Case, folder: Path) -> Result:
    """Whatever the opening raises is a start that was blocked."""
    try:
        return check_files(case, folder)
    except Exception as error:  # noqa: BLE001 - this is the check
        return Result(case.kind, 0, f"start blocked: {type(error).__name__}: {error}")


def run(seed: int, damages: int, files: int, processes: int = PROCESSES) -> Tally:
    """Check so many damages, spread over processes."""
    ends = [damages * index // processes for index in range(processes + 1)]
    shares = [(seed, first, end, files // processes) for first, end in pairwise(ends)]
    tally = Tally(Counter(), Counter(), [])
    if processes == 1:
        tally.add(run_share(*shares[0]))
        return tally
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for share in pool.starmap(run_share, shares):
            tally.add(share)
    return tally


def table(tally: Tally) -> list[str]:
    """Return the result as lines."""
    lines = [f"{'damage':<16}{'segments':>10}{'frames hit':>12}"]
    lines += [f"{kind:<16}{tally.damages[kind]:>10}{tally.lost[kind]:>12}" for kind in KINDS]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    files = min(arguments.files, arguments.damages)
    tally = run(arguments.seed, arguments.damages, files)
    print("\n".join([*table(tally), *tally.problems[:50]]))
    undetected = sum("not detected" in problem for problem in tally.problems)
    blocked = sum("start blocked" in problem for problem in tally.problems)
    print(f"{files} of them through files; {time.monotonic() - began_s:.0f} s, seed {arguments.seed}")
    print(
        f"damages {tally.damages.total()} detected {tally.damages.total() - undetected} "
        f"starts blocked {blocked} other problems {len(tally.problems) - undetected - blocked}"
    )
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
