"""A new set in the place of one that is due, by the service itself.

It is made of the labels there are, as `pcs-backend calibrate promote` would make it, but never without a threshold that the
old one gives, and not twice in short. Where recalibration is not automatic it is only said that one is due. Of several
processes the version decides: who was slower promotes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from msgspec import UNSET

from pcs_backend.conformal.build import BuildSettings, Built, build_set, lost_classes
from pcs_backend.conformal.calibration import GLOBAL_SCOPE, CalibrationSet, Labelled, Promotion, Trigger
from pcs_backend.conformal.in_force import SetInForce
from pcs_backend.conformal.store import ARTIFACTS_MAX, LABELS_MAX, CalibrationStore
from pcs_backend.errors import ScoreError, StoreFullError
from pcs_core.params import Params
from pcs_core.ports import Offload, WallClock

RECALIBRATION_INTERVAL_S = 3_600.0
"""Least time between two sets of a scope, if the second is automatic; longer where there are many scopes."""

AUTOMATIC_SETS_MAX = ARTIFACTS_MAX // 2
"""Automatic sets that a store comes to hold at most, so that there is room for those that are promoted by hand."""

RETRY_INTERVAL_S = 300.0
"""Until a recalibration that lacked labels is tried again."""

_HOUR_MS = 3_600_000

_log = structlog.get_logger(__name__)


class Recalibration:
    """Replaces sets that are due."""

    def __init__(
        self,
        *,
        store: CalibrationStore,
        build: BuildSettings,
        automatic: bool,
        sets_kept_s: float,
        params: Params,
        offload: Offload,
        now: WallClock,
    ) -> None:
        """Wire it.

        Args:
            store: Labels and sets.
            build: How sets are made.
            automatic: Whether due sets are replaced; else it is only said.
            sets_kept_s: How long the store keeps a set that is in force no more.
            params: That sets are made with.
            offload: Where sets are made.
            now: Wall clock.
        """
        self._store = store
        self._build = build
        self._automatic = automatic
        self._sets_kept_s = sets_kept_s
        self._params = params
        self._offload = offload
        self._now = now
        self._tried_at_s: dict[str, float] = {}
        self._said: set[tuple[str, Trigger]] = set()

    def forget_all_but(self, digests: set[str], scopes: set[str]) -> None:
        """Remember what is in force alone, so that it stays bounded."""
        self._said = {(digest, trigger) for digest, trigger in self._said if digest in digests}
        self._tried_at_s = {scope: at_s for scope, at_s in self._tried_at_s.items() if scope in scopes}

    async def replace(self, scope: str, current: SetInForce, trigger: Trigger, scopes: int) -> bool:
        """Replace a set that is due, if that is automatic, late enough, and there are labels enough.

        Args:
            scope: The set's.
            current: The set.
            trigger: Why it is due.
            scopes: How many have a set: they share the room there is.

        Returns:
            Whether another one is in force now, by this call.

        Raises:
            UnavailableError: The store is down.
        """
        if not self._automatic:
            self._say(current, "a calibration set is due for another", scope, trigger)
            return False
        if current.found.weighting is not UNSET:
            message = "a calibration set is due for another, and only somebody who knows its density ratio can make it"
            self._say(current, message, scope, trigger)
            return False
        now_s = self._now()
        if now_s - self._tried_at_s.get(scope, -RETRY_INTERVAL_S) < RETRY_INTERVAL_S:
            return False
        newest = next(iter(await self._store.list_promotions(scope, 1)), None)
        if newest is None or newest.digest != current.digest:
            return False  # another process was faster, and this one sees it soon
        if now_s - newest.promoted_at_ms / 1_000 < interval_s(scopes, self._sets_kept_s):
            return False
        self._tried_at_s[scope] = now_s
        made = await self._make(scope, current, trigger, int(now_s * 1_000))
        if made is None:
            return False
        try:
            await self._store.keep([made.encoded])
        except StoreFullError:  # the others' turn does not wait for it
            message = "a calibration set is due for another, and the store holds as many sets as it may"
            self._say(current, message, scope, trigger)
            return False
        promotion = Promotion(
            scope=scope,
            version=newest.version + 1,
            digest=made.digest,
            by="",
            note=f"recalibrated: {trigger}",
            promoted_at_ms=int(now_s * 1_000),
        )
        if not await self._store.promote(promotion):
            return False
        _log.info(
            "recalibrated",
            scope=scope,
            version=promotion.version,
            trigger=trigger,
            benign=len(made.benign),
            bad=len(made.bad),
        )
        return True

    async def _make(
        self, scope: str, current: SetInForce, trigger: Trigger, now_ms: int
    ) -> CalibrationSet | None:
        """Return a set that gives every threshold the current one gives; `None` without labels for it."""
        labels = await self._labels(scope, now_ms)

        def build() -> Built:
            return build_set(
                labels, scope=scope, settings=self._build, params=self._params, now_ms=now_ms, trigger=trigger
            )

        try:
            built = await self._offload.run(build)
        except ScoreError:
            message = "a calibration set is due for another, and its score cannot be fitted"
            self._say(current, message, scope, trigger)
            return None
        made = built.calibration_set
        if made is None or lost_classes(current.found, made):
            message = "a calibration set is due for another, and labels are too few"
            self._say(current, message, scope, trigger)
            return None
        return made

    async def _labels(self, scope: str, now_ms: int) -> Sequence[Labelled]:
        since_ms = now_ms - int(self._build.window_h * _HOUR_MS)
        tenant = None if scope == GLOBAL_SCOPE else scope
        return await self._store.list_labels(tenant, since_ms=since_ms, limit=LABELS_MAX)

    def _say(self, current: SetInForce, message: str, scope: str, trigger: Trigger) -> None:
        """Say it once a set and trigger."""
        key = (current.digest, trigger)
        if key not in self._said:
            self._said.add(key)
            _log.warning(message, scope=scope, trigger=trigger)


def interval_s(scopes: int, sets_kept_s: float) -> float:
    """Return the least time between two sets of a scope, if the second is automatic.

    Args:
        scopes: How many have a set.
        sets_kept_s: How long the store keeps a set that is in force no more.

    >>> interval_s(1, 15 * 86_400), interval_s(100, 15 * 86_400)
    (3600.0, 129600.0)
    """
    return max(RECALIBRATION_INTERVAL_S, sets_kept_s * scopes / AUTOMATIC_SETS_MAX)
