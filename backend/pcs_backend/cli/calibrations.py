"""How `calibrate` reaches labels, sets and promotions: in the store itself, or through the process that serves its memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import aiohttp
import msgspec

from pcs_backend.cli.folder import direct_store, ok_body, serving_process
from pcs_backend.config import Config
from pcs_backend.conformal.calibration import Labelled, Promotion
from pcs_backend.conformal.labelling import Get
from pcs_backend.conformal.store import Calibrations
from pcs_backend.http.admin import OUTCOMES_PATH, Lookup
from pcs_backend.http.admin_calibrations import (
    ALWAYS,
    ARTIFACTS_PATH,
    FETCH_PATH,
    LABELS_ADMIN_PATH,
    PROMOTIONS_PATH,
)
from pcs_backend.outcome import Key, Outcome

SENT_LABELS_MAX = 256
"""Labels in one call of the administration socket, which takes a MiB: the longest name of who labelled is 2 KiB."""


class Reached(NamedTuple):
    """What the command works on.

    Attributes:
        calibrations: Labels, sets and promotions.
        get: Asks for stored outcomes.
    """

    calibrations: Calibrations
    get: Get


class ServedCalibrations:
    """The calibration store of a serving process, over its administration socket. As `Calibrations`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Take the way there."""
        self._session = session

    async def put_labels(self, labels: Sequence[Labelled]) -> None:
        """As `Calibrations.put_labels`."""
        for first in range(0, len(labels), SENT_LABELS_MAX):
            await self._post(LABELS_ADMIN_PATH, labels[first : first + SENT_LABELS_MAX])

    async def list_labels(self, tenant: str | None, *, since_ms: int, limit: int) -> list[Labelled]:
        """As `Calibrations.list_labels`."""
        query = {"since_ms": str(since_ms), "limit": str(limit)} | _unless_none("tenant", tenant)
        return msgspec.json.decode(await self._get(LABELS_ADMIN_PATH, query), type=list[Labelled])

    async def keep(self, artifacts: Sequence[bytes], *, always: bool = False) -> None:
        """As `Calibrations.keep`."""
        await self._post(ARTIFACTS_PATH, artifacts, {ALWAYS: "true"} if always else {})

    async def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `Calibrations.fetch`."""
        return msgspec.json.decode(await self._post(FETCH_PATH, digests), type=list[bytes | None])

    async def promote(self, promotion: Promotion) -> bool:
        """As `Calibrations.promote`."""
        return msgspec.json.decode(await self._post(PROMOTIONS_PATH, promotion), type=bool)

    async def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `Calibrations.list_promotions`."""
        query = {"limit": str(limit)} | _unless_none("scope", scope)
        return msgspec.json.decode(await self._get(PROMOTIONS_PATH, query), type=list[Promotion])

    async def outcomes(self, keys: Sequence[Key]) -> list[Outcome | None]:
        """Return the stored outcome of each key, in order."""
        answer = await self._post(OUTCOMES_PATH, Lookup(list(keys)))
        return msgspec.json.decode(answer, type=Lookup).found

    async def _get(self, path: str, query: dict[str, str]) -> bytes:
        return await ok_body(await self._session.get(path, params=query))

    async def _post(self, path: str, body: object, query: Mapping[str, str] = MappingProxyType({})) -> bytes:
        return await ok_body(await self._session.post(path, params=query, data=msgspec.json.encode(body)))


@contextlib.asynccontextmanager
async def reach(config: Config) -> AsyncIterator[Reached]:
    """Open the store here, or ask the process that has it.

    Raises:
        StoreUnavailableError: Neither answers.
    """
    async with direct_store(config) as store:
        if store is not None:
            yield Reached(store.calibrations, store.get)
            return
    async with serving_process(config.settings.data_dir) as session:
        served = ServedCalibrations(session)
        yield Reached(served, served.outcomes)


def _unless_none(name: str, value: str | None) -> dict[str, str]:
    return {} if value is None else {name: value}
