"""Wiring: the only module that builds things. Commands call it with checked settings and get results back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

import msgspec

from pcs_agent.config import OUTBOX_DIR, Config
from pcs_agent.deliver.batch_size import BatchSize
from pcs_agent.deliver.courier import FLIGHTS_MAX, Courier
from pcs_agent.deliver.dispatch import Dispatcher
from pcs_agent.deliver.offload import ThreadOffload
from pcs_agent.deliver.request_signer import RequestSigner
from pcs_agent.deliver.sender import Sender
from pcs_agent.deliver.transport import batch_url, open_transport
from pcs_agent.embed import TextSettings
from pcs_agent.errors import ConfigError, InputError
from pcs_agent.events import count_windows, iter_chunked_windows, iter_windows, open_sources
from pcs_agent.events.windows import Window
from pcs_agent.outbox import Outbox
from pcs_agent.pipeline import (
    Job,
    Outcome,
    Run,
    Summary,
    iter_summaries,
    or_empty,
    require_epochs,
    summarise,
)
from pcs_agent.signals import Codebook, SignalSettings
from pcs_agent.signals.blocks import as_blocks
from pcs_agent.signals.codebook_file import read_codebook
from pcs_agent.signals.training import train_codebook
from pcs_core.errors import WalLockedError
from pcs_core.identity import ShardId
from pcs_core.signing import Signer, SigningAlgorithm
from pcs_core.wal import PosixFiles

T = TypeVar("T")


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks to be summarised.

    Attributes:
        inputs: Files, `-` for standard input; one stream in order.
        shard_id: Who summarises.
        epoch: Epoch of the first window.
        settings: What the signals depend on.
        window_rows: Events a window; `None` for one window of everything.
        chunk_rows: Rows of a window that are read at a time; `None` to hold each window in memory.
        format_name: Format where no ending tells it.
        columns: Chosen columns; `None` for all numeric ones.
        allow_missing: Whether missing or empty input makes a degraded record.
        text: How text and tokens become rows.
        follow: Whether the last input is read as it grows, until it is ended.
        codebook: File that gives rows their codes; `None` for a codebook of each window's own.
    """

    inputs: Sequence[str]
    shard_id: ShardId
    epoch: int
    settings: SignalSettings
    window_rows: int | None = None
    chunk_rows: int | None = None
    format_name: str | None = None
    columns: Sequence[str] | None = None
    allow_missing: bool = False
    text: TextSettings = TextSettings()
    follow: bool = False
    codebook: str | None = None


def build_once(
    config: Config, request: StreamRequest, stdin: Callable[[], BinaryIO], warn: Callable[[str], None]
) -> Summary:
    """Return the signed record of one window; nothing is sent and no outbox touched.

    Args:
        config: Checked settings.
        request: What to summarise.
        stdin: Gives standard input.
        warn: Told what the user should know.

    Raises:
        InputError: The input cannot be summarised.
        ConfigError: The key cannot sign.
    """
    with contextlib.ExitStack() as files:
        windows, job, _ = open_stream(config, request, stdin, files, warn)
        return summarise(list(windows), job, time.time)[0]


def train_codebook_of(
    inputs: Sequence[str],
    stdin: Callable[[], BinaryIO],
    warn: Callable[[str], None],
    *,
    format_name: str | None,
    columns: Sequence[str] | None,
    subspaces: int,
    codes: int,
    seed: int,
) -> Codebook:
    """Return a codebook for rows like those of the inputs, which are read into memory.

    Args:
        inputs: Files, `-` for standard input; one stream in order.
        stdin: Gives standard input.
        warn: Told what the user should know.
        format_name: Format where no ending tells it.
        columns: Chosen columns; `None` for all numeric ones.
        subspaces: As `train_codebook` takes it.
        codes: The same.
        seed: The same.

    Raises:
        InputError: There is no row, or the inputs cannot be read.
    """
    with contextlib.ExitStack() as files:
        sources, _ = open_sources(
            inputs, stdin=stdin, files=files, format_name=format_name, columns=columns, warn=warn
        )
        window = next(iter_windows(sources, None), None)
    if window is None:
        raise InputError("input: found no events; allowed: one or more")
    return train_codebook(as_blocks(window.events), subspaces=subspaces, codes=codes, seed=seed)


async def run_stream(
    config: Config,
    request: StreamRequest,
    stdin: Callable[[], BinaryIO],
    *,
    report: Callable[[Outcome], None],
    warn: Callable[[str], None],
    announce: Callable[[int | None], None],
    stop: asyncio.Event,
    input_ended: threading.Event,
) -> int:
    """Deliver what an earlier run left, then the stream. Returns how many records are not delivered, each damaged place of the outbox counted as one.

    Args:
        config: Checked settings.
        request: What to summarise.
        stdin: Gives standard input.
        report: Told once of every record.
        warn: Told what the user should know.
        announce: Told the number of windows, `None` if it is not known.
        stop: Ends the run when it is set; what waits stays in the outbox.
        input_ended: Ends a followed input when it is set; what was read is delivered.

    Raises:
        InputError: The stream cannot be read.
        ConfigError: Endpoint, key or outbox cannot be used.
    """
    endpoint = config.require_endpoint()
    with contextlib.ExitStack() as files:
        # Standard input may be silent, and some formats begin with a header.
        stream = await unless_stopped(
            ThreadOffload().run(lambda: open_stream(config, request, stdin, files, warn, input_ended)), stop
        )
        if stream is None:
            warn("interrupted before anything was read")
            return 0
        windows, job, expected = stream
        announce(expected)
        outbox = files.enter_context(open_outbox(config, warn))
        summaries = iter_summaries(windows, job, time.time)
        return await deliver(
            config, endpoint, outbox, summaries, report=report, warn=warn, resigner=None, stop=stop
        )


async def flush(
    config: Config,
    *,
    report: Callable[[Outcome], None],
    warn: Callable[[str], None],
    resign: bool,
    stop: asyncio.Event,
) -> int:
    """Deliver what is pending. Returns how many records are not delivered, each damaged place of the outbox counted as one.

    Args:
        config: Checked settings.
        report: Told once of every record.
        warn: Told what the user should know.
        resign: Whether records are signed anew with the present key before they are sent.
        stop: Ends the delivery when it is set; what waits stays in the outbox.

    Raises:
        ConfigError: Endpoint, key or outbox cannot be used.
    """
    endpoint = config.require_endpoint()
    resigner = config.require_signer() if resign else None
    with open_outbox(config, warn) as outbox:
        return await deliver(
            config, endpoint, outbox, None, report=report, warn=warn, resigner=resigner, stop=stop
        )


@contextlib.contextmanager
def open_outbox(config: Config, warn: Callable[[str], None]) -> Iterator[Outbox]:
    """Open the outbox, locked, and close it in the end.

    Args:
        config: Names folder and retention.
        warn: Told of damage.

    Raises:
        ConfigError: Another process owns it, or the folder cannot be used.
    """
    outbox = Outbox(
        config.outbox_dir,
        PosixFiles(),
        clock=time.time,
        random_bytes=os.urandom,
        retention_days=config.retention_days,
    )
    problem = None
    try:
        outbox.open()
    except WalLockedError:
        problem = "found an outbox that another process has locked; allowed: one process at a time"
    except OSError as error:
        problem = f"cannot be used: {os.strerror(error.errno) if error.errno else type(error).__name__}"
    if problem is not None:
        raise ConfigError(f"{OUTBOX_DIR}: {problem}")
    try:
        if outbox.torn_bytes:
            warn(f"outbox: an unfinished write of {outbox.torn_bytes} bytes was cut off and kept aside")
        if _count_damages(outbox):
            warn(
                f"outbox: found {len(outbox.damages)} damaged places and {outbox.unreadable_frames} unreadable "
                "entries; everything else was read"
            )
        yield outbox
    finally:
        outbox.close()


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Return what the work returns, or `None` when it was to stop before. Any: what coroutines yield is asyncio's own."""
    working = asyncio.create_task(work, name="opening the stream")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def open_unsigned(
    config: Config,
    request: StreamRequest,
    stdin: Callable[[], BinaryIO],
    files: contextlib.ExitStack,
    warn: Callable[[str], None],
) -> tuple[Iterator[Window], Job]:
    """Open a stream that is only looked at: its records get no signature, so no key is needed.

    Args:
        config: Checked settings.
        request: What to summarise.
        stdin: Gives standard input.
        files: Closes what is opened here.
        warn: Told what the user should know.

    Raises:
        InputError: The input cannot be opened.
    """
    keyless = dataclasses.replace(config, algorithm=SigningAlgorithm.NONE, signer=None)
    windows, job, _ = open_stream(keyless, request, stdin, files, warn)
    return windows, job


def open_stream(
    config: Config,
    request: StreamRequest,
    stdin: Callable[[], BinaryIO],
    files: contextlib.ExitStack,
    warn: Callable[[str], None],
    input_ended: threading.Event | None = None,
) -> tuple[Iterator[Window], Job, int | None]:
    """Return the windows of one stream, what they are summarised for, and how many there are, if that is known.

    Args:
        config: Checked settings.
        request: What to summarise.
        stdin: Gives standard input.
        files: Closes what is opened here.
        warn: Told what the user should know.
        input_ended: Ends a followed input when it is set.

    Raises:
        InputError: An input cannot be read.
        ConfigError: The key cannot sign.
    """
    signer = config.require_signer()
    settings = request.settings
    if request.codebook is not None:
        settings = msgspec.structs.replace(settings, codebook=read_codebook(request.codebook))
    sources, missing = open_sources(
        request.inputs,
        stdin=stdin,
        files=files,
        format_name=request.format_name,
        columns=request.columns,
        text=request.text,
        allow_missing=request.allow_missing,
        follow=input_ended if request.follow else None,
        warn=warn,
    )
    expected = None if request.follow else count_windows(sources, request.window_rows)
    if expected is not None:
        require_epochs(request.epoch, expected)
    job = Job(
        shard_id=request.shard_id,
        first_epoch=request.epoch,
        settings=settings,
        params=config.params,
        signer=signer,
        direction_key=config.direction_key,
        allow_missing=request.allow_missing,
        missing=missing,
        inputs=tuple(source.name for source in sources),
    )
    if request.chunk_rows is None:
        windows = iter_windows(sources, request.window_rows)
    else:
        windows = iter_chunked_windows(sources, request.window_rows, request.chunk_rows)
    return or_empty(windows, job), job, expected


async def deliver(
    config: Config,
    endpoint: str,
    outbox: Outbox,
    summaries: Iterator[Sequence[Summary]] | None,
    *,
    report: Callable[[Outcome], None],
    warn: Callable[[str], None],
    resigner: Signer | None,
    stop: asyncio.Event,
) -> int:
    """Deliver what is pending and then, if given, what a stream is summarised to. Returns as `run_stream` does.

    Args:
        config: Checked settings.
        endpoint: The URL of `config`.
        outbox: Open.
        summaries: Signed records as they are made.
        report: Told once of every record.
        warn: Told what the user should know.
        resigner: Signs pending records anew before they are sent, `None` to send them as they are.
        stop: Ends the delivery when it is set.
    """
    offload = ThreadOffload()
    run = Run(outbox, offload=offload, report=report, warn=warn)
    request_signer = None
    if config.message_signer is not None and config.signer is not None:
        request_signer = RequestSigner(config.message_signer, config.signer.key_id, endpoint)
    size = BatchSize(config.batch_records if batch_url(endpoint) else 1, time.monotonic)
    async with open_transport(endpoint, connections_max=FLIGHTS_MAX, tls=config.tls) as transport:
        dispatcher = Dispatcher(
            transport, time.time, resigner, request_signer, os.urandom, gzip_batches=config.batch_gzip
        )
        courier = Courier(
            outbox,
            Sender(dispatcher, size),
            offload=offload,
            monotonic=time.monotonic,
            sleep=asyncio.sleep,
            random=random.random,
            deadline_s=config.deadline_s,
            settled=run.note_settlement,
            warn=warn,
        )
        await run.deliver(courier, summaries, stop)
    lost = _count_damages(outbox)
    if lost:
        warn(
            "outbox: a record that waited where the damage is was not delivered; the same command over the same input "
            "makes it again. Then remove the damage: OUTBOX_RETENTION_DAYS=0 pcs-agent outbox compact"
        )
    return run.undelivered + lost


def _count_damages(outbox: Outbox) -> int:
    """Return in how many places a record may have been that can be read no more."""
    return len(outbox.damages) + outbox.unreadable_frames
