"""Many streams in one run: each file is one, with a shard of its own, summarised by an engine's processes.

The parent process alone owns the outbox and delivers. A file that cannot be summarised is told of and counted, the
others go on. What a crash does is in `pcs_agent.pipeline`: the same command again makes the same records, and delivers
those that were not delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NoReturn

import msgspec

from pcs_agent.app import StreamRequest, deliver, open_outbox, open_stream, unless_stopped
from pcs_agent.config import Config
from pcs_agent.deliver.offload import ThreadOffload
from pcs_agent.engines import Engine, Lost, count_cores, in_order, open_engine
from pcs_agent.errors import AgentError, InputError
from pcs_agent.events import STANDARD_INPUT, Found, find_files, has_known_ending, kinds_of, names_many
from pcs_agent.pipeline import Outcome, Summary, iter_summaries
from pcs_agent.shard_names import derive_shard_id, require_distinct
from pcs_agent.wording import count_of, display_name
from pcs_core.record import encode_record

SHARD_BYTES_MAX = 64 << 20
"""Records of one file that a worker gathers, as JSON: some 80,000 of them in the plane."""

WARNINGS_MAX = 100
"""Different warnings that the files of one run may give; what one says of many files is told once."""


class ManyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How many streams are summarised.

    Attributes:
        engine: One of `pcs_agent.engines.ENGINES`.
        jobs: Files at once; `None` for every core.
        cluster: Address of a cluster that runs, `None` for processes of this machine.
    """

    engine: str = "local"
    jobs: int | None = None
    cluster: str | None = None


class ShardTask(msgspec.Struct, frozen=True, kw_only=True):
    """One file and all that its worker must know. It prints as the shard alone, for it holds the key.

    Attributes:
        request: As for a stream of its own.
        config: `Config.for_workers`.
    """

    request: StreamRequest
    config: Config

    def __repr__(self) -> str:
        return f"ShardTask({self.request.shard_id})"


class Shard(msgspec.Struct, kw_only=True):
    """What a worker made of one file.

    Attributes:
        summaries: Its signed records, in order; those before the problem, if there is one.
        warnings: What the user should know.
        problem: Why it could not be summarised to its end; empty if it could.
    """

    summaries: list[Summary] = []
    warnings: list[str] = []
    problem: str = ""


class Tally(msgspec.Struct):
    """What became of the files.

    Attributes:
        files: How many there are.
        refused: Of how many the input was at fault.
        lost: How many were given up because their processes died.
    """

    files: int
    refused: int = 0
    lost: int = 0


def summarise_shard(task: ShardTask) -> Shard:
    """Summarise one file, in a worker process. Raises nothing: what went wrong is in the result, without a payload."""
    shard = Shard()
    size_bytes = 0
    try:
        config = task.config.with_signer()
        with contextlib.ExitStack() as files:
            windows, job, _ = open_stream(config, task.request, _no_input, files, shard.warnings.append)
            for summaries in iter_summaries(windows, job, time.time):
                shard.summaries += summaries
                size_bytes += sum(len(encode_record(summary.record)) for summary in summaries)
                if size_bytes > SHARD_BYTES_MAX:
                    _refuse_size(task.request)
    except AgentError as error:
        shard.problem = str(error)
    except Exception as error:  # noqa: BLE001  # its message may quote the input, so it goes no further
        shard.problem = f"{_name(task.request)}: cannot be summarised: {type(error).__name__}"
    return shard


def is_many(inputs: Sequence[str], *, each: bool) -> bool:
    """Whether the inputs are many streams and not one.

    Args:
        inputs: As on the command line.
        each: Whether listed files are a stream each.

    Raises:
        InputError: Folders or patterns stand beside what would be one stream, or standard input beside many.
    """
    several = [names_many(path) for path in inputs]
    if not (each or any(several)):
        return False
    if STANDARD_INPUT in inputs:
        raise InputError("standard input: found beside many streams; allowed: files, folders and patterns")
    if not (each or all(several)):
        listed = display_name(inputs[several.index(False)])
        raise InputError(
            f"{listed}: found a file beside a folder or pattern; allowed: one kind, or --each, which makes every file a "
            "stream of its own"
        )
    return True


def plan_tasks(
    config: Config, request: StreamRequest, warn: Callable[[str], None], *, absolute: bool = False
) -> list[ShardTask]:
    """Return a task for each file, in the order of their names.

    Args:
        config: Checked settings.
        request: What to summarise; its shard is the first part of each file's.
        warn: Told of files that are left out.
        absolute: Whether workers may run in another folder.

    Raises:
        InputError: A folder cannot be read, a pattern matches nothing, or a shard would be too long or another's.
    """
    every = request.format_name is not None
    found, left_out = find_files(request.inputs, lambda path: every or has_known_ending(path))
    if left_out:
        warn(
            f"{count_of(left_out, 'file')} left out: no known ending; --format says how to read files without one"
        )
    config = config.for_workers()
    kinds = kinds_of([each.path for each in found], request.format_name)
    tasks = [
        ShardTask(request=_request_for(each, kinds[each.path], request, absolute=absolute), config=config)
        for each in found
    ]
    require_distinct((task.request.inputs[0], task.request.shard_id) for task in tasks)
    return tasks


async def run_streams(
    config: Config,
    request: StreamRequest,
    many: ManyRequest,
    *,
    report: Callable[[Outcome], None],
    warn: Callable[[str], None],
    announce: Callable[[int], None],
    advance: Callable[[], None],
    stop: asyncio.Event,
) -> int:
    """Deliver what an earlier run left, then every stream. Returns as `pcs_agent.app.run_stream` does, a lost file counted as one record.

    Args:
        config: Checked settings.
        request: What to summarise; each file is a stream.
        many: By what.
        report: Told once of every record.
        warn: Told what the user should know.
        announce: Told the number of files.
        advance: Told when one is through.
        stop: Ends the run when it is set; what waits stays in the outbox.

    Raises:
        InputError: Files cannot be found; or in the end, when the others are through, a file could not be read.
        ConfigError: Endpoint, key, outbox or engine cannot be used.
    """
    endpoint = config.require_endpoint()
    config.require_signer()
    offload = ThreadOffload()
    absolute = many.engine != "local"
    tasks = await unless_stopped(
        offload.run(lambda: plan_tasks(config, request, warn, absolute=absolute)), stop
    )
    if tasks is None:
        warn("interrupted before anything was read")
        return 0
    announce(len(tasks))
    tally = Tally(len(tasks))
    with contextlib.ExitStack() as files:
        outbox = files.enter_context(open_outbox(config, warn))
        jobs = many.jobs if many.cluster else min(many.jobs or count_cores(), len(tasks))
        opening = offload.run(
            lambda: open_engine(many.engine, summarise_shard, jobs=jobs, cluster=many.cluster)
        )
        # One that starts processes is waited for, also after a signal, or it would leave some of them.
        engine: Engine[ShardTask, Shard] | None = (
            await unless_stopped(opening, stop) if many.cluster else await opening
        )
        if engine is None:
            warn("interrupted before anything was read")
            return 0
        files.callback(engine.close)
        _take_signals_back()
        summaries = iter_shards(engine, tasks, tally, warn, advance)
        undelivered = await deliver(
            config, endpoint, outbox, summaries, report=report, warn=warn, resigner=None, stop=stop
        )
    if tally.lost and not tally.refused:
        warn(_say_how_many(tally, tally.lost))
    if tally.refused:
        raise InputError(_say_how_many(tally, tally.refused + tally.lost))
    return undelivered + tally.lost


def iter_shards(
    engine: Engine[ShardTask, Shard],
    tasks: Sequence[ShardTask],
    tally: Tally,
    warn: Callable[[str], None],
    advance: Callable[[], None],
) -> Iterator[list[Summary]]:
    """Yield the records of each file, in the order of the tasks.

    Args:
        engine: Open.
        tasks: One a file.
        tally: Counts what goes wrong.
        warn: Told of each file's problem, and of its warnings.
        advance: Told when a file is through.
    """
    told: set[str] = set()
    shards = in_order(engine, tasks)
    for task, shard in zip(tasks, shards, strict=True):
        if isinstance(shard, Lost):
            tally.lost += 1
            warn(f"{_name(task.request)}: not summarised: its process ended again and again ({shard.reason})")
        else:
            for message in shard.warnings:
                what = message.removeprefix(_name(task.request))
                if what not in told and len(told) < WARNINGS_MAX:
                    told.add(what)
                    warn(message)
            if shard.problem:
                tally.refused += 1
                warn(shard.problem)
            yield shard.summaries
        advance()


def _take_signals_back() -> None:
    """Install this process's handlers once more; Ray puts its own in their place, which print and may end the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, handler)
            signal.siginterrupt(number, False)  # as asyncio has it


def _request_for(found: Found, kind: str, request: StreamRequest, *, absolute: bool) -> StreamRequest:
    return msgspec.structs.replace(
        request,
        inputs=[os.path.abspath(found.path) if absolute else found.path],
        shard_id=derive_shard_id(request.shard_id, found.name),
        format_name=kind,
    )


def _name(request: StreamRequest) -> str:
    return display_name(request.inputs[0])


def _refuse_size(request: StreamRequest) -> NoReturn:
    raise InputError(
        f"{_name(request)}: found records of over {SHARD_BYTES_MAX} bytes; allowed: up to that a file among many; give it "
        "a run of its own, or a larger --window"
    )


def _no_input() -> BinaryIO:
    raise InputError("standard input: found beside many streams; allowed: files, folders and patterns")


def _say_how_many(tally: Tally, failed: int) -> str:
    return f"{failed} of {count_of(tally.files, 'file')} could not be summarised to the end; the others were"
