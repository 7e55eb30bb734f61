"""The sets in force, as this process knows them: read from the store every few seconds, thresholds taken once a set.

Before they were read once nothing is decided: a service that is told to keep a promise does not begin without. The first
record waits for them. Later a store that is down leaves the sets as they are; outcomes cannot be stored meanwhile anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import msgspec
import structlog

from pcs_backend.conformal.calibration import GLOBAL_SCOPE, CalibrationSet, Label, decode_set
from pcs_backend.conformal.gate import Gate, Side, side_of
from pcs_backend.conformal.provenance import SetName, digest_of, encode_params
from pcs_backend.conformal.scores import Score, score_from
from pcs_backend.conformal.store import CalibrationStore
from pcs_backend.errors import ScoreError, UnavailableError
from pcs_core.params import Params
from pcs_core.ports import Sleep

SETS_IN_FORCE_MAX = 1_000
"""Scopes whose sets are held. Tenants beyond are judged by the global set."""

REFRESH_INTERVAL_S = 2.0

_log = structlog.get_logger(__name__)


class SetInForce:
    """A set, its version, and the sides it gives."""

    def __init__(self, found: CalibrationSet, set_name: SetName, score: Score) -> None:
        """Take thresholds, once.

        Args:
            found: The set.
            set_name: What the store calls it, which another version of the package may have written.
            score: The one it names.
        """
        self.found = found
        self.score = score
        self.digest, self.version = set_name
        labels: tuple[Label, Label] = ("benign", "bad")
        self.benign, self.bad = (side_of(found, set_name, score, label) for label in labels)


class Gates:
    """Gives each tenant its gate."""

    def __init__(self, store: CalibrationStore, params: Params, *, decides: bool) -> None:
        """Take what gates are made of; nothing is read before `refresh`.

        Args:
            store: Where sets are.
            params: In force.
            decides: Whether the gate is on; else outcomes only keep what a later label needs.
        """
        self._store = store
        self._params = params
        self._params_artifact = encode_params(params)
        self._params_digest = digest_of(self._params_artifact)
        self.decides = decides
        self._sets: dict[str, SetInForce] = {}
        self._gates: dict[str, Gate] = {}
        self._current: dict[str, SetName] | None = None

    @property
    def sets(self) -> Mapping[str, SetInForce]:
        """The sets in force by scope."""
        return self._sets

    @property
    def are_read(self) -> bool:
        """Whether the sets were read."""
        return self._current is not None

    def gate(self, tenant: str) -> Gate:
        """Return what decides on records of a tenant. The sets must have been read: `load`."""
        assert self._current is not None, "load comes first"
        if tenant not in self._sets:
            tenant = GLOBAL_SCOPE
        if (gate := self._gates.get(tenant)) is None:
            gate = self._gates[tenant] = self._new_gate(tenant)
        return gate

    async def load(self) -> None:
        """Read the sets unless they were read before.

        Raises:
            UnavailableError: The store is down, or the memory store's log refuses.
        """
        if self._current is None:
            await self.refresh()

    async def refresh(self) -> None:
        """Read what is in force now.

        Raises:
            UnavailableError: As `load`; what was read before stays in force.
        """
        known = self._current
        if known is None:
            await self.keep_params()
        promotions = await self._store.list_promotions(None, SETS_IN_FORCE_MAX)
        current = {each.scope: SetName(each.digest, each.version) for each in promotions}
        if current == known:
            return
        changed = [scope for scope, name in current.items() if known is None or known.get(scope) != name]
        found = await self._store.fetch([current[scope].digest for scope in changed])
        sets = {scope: each for scope, each in self._sets.items() if scope in current}
        for scope, artifact in zip(changed, found, strict=True):
            sets.pop(scope, None)
            if (read := self._read(scope, current[scope], artifact)) is not None:
                sets[scope] = read
        self._sets, self._gates, self._current = sets, {}, current

    async def keep_params(self) -> None:
        """Say that the parameters are needed, as no promotion does. Every day at least.

        Raises:
            UnavailableError: The store is down, or the memory store's log refuses.
        """
        await self._store.keep([self._params_artifact], always=True)

    async def keep_fresh(self, sleep: Sleep) -> None:
        """Refresh for ever."""
        while True:
            with contextlib.suppress(UnavailableError):  # its monitor, or readiness, says so
                await self.refresh()
            await sleep(REFRESH_INTERVAL_S)

    def _read(self, scope: str, name: SetName, artifact: bytes | None) -> SetInForce | None:
        """Return a set that was fetched; of one that cannot be read nothing is promised, and answers say so."""
        try:
            if artifact is None or digest_of(artifact) != name.digest:
                raise ValueError("the store has not what it calls so")
            found = decode_set(artifact)
            return SetInForce(found, name, score_from(found.score, found.score_parameters, self._params))
        except (ValueError, msgspec.MsgspecError, ScoreError) as error:
            _log.error(
                "a calibration set cannot be used",
                scope=scope,
                version=name.version,
                error=type(error).__name__,
            )
            return None

    def _new_gate(self, scope: str) -> Gate:
        benign, bad = self._side(scope, "benign"), self._side(scope, "bad")
        return Gate(benign, bad, self._params_digest, decides=self.decides)

    def _side(self, scope: str, label: Label) -> Side | None:
        """Return a side of the scope's set, or else of the global one."""
        for each in (scope, GLOBAL_SCOPE):
            if (found := self._sets.get(each)) is not None:
                side = found.benign if label == "benign" else found.bad
                if side is not None:
                    return side
        return None
