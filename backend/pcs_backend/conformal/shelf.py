"""Labels, artifacts and promotions in memory, within their bounds. Keeps nothing on disk and knows no clock."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from pcs_backend.conformal.calibration import Label, Labelled, Promotion
from pcs_backend.conformal.store import (
    ARTIFACT_RENEWED_MS,
    ARTIFACTS_MAX,
    LABELS_MAX,
    PROMOTIONS_MAX,
    Artifact,
    digest_of,
    newest_first,
)

_CLASSES: tuple[Label, Label] = ("benign", "bad")


class Contents(NamedTuple):
    """What a shelf holds, each in an order in which it can be put on another.

    Attributes:
        labels: Of all tenants.
        artifacts: All.
        promotions: Of each scope the oldest first.
    """

    labels: list[Labelled]
    artifacts: list[Artifact]
    promotions: list[Promotion]


class Shelf:
    """What a `CalibrationStore` holds."""

    def __init__(self) -> None:
        """Start empty."""
        self._labels: dict[tuple[str, Label], _Labels] = {}
        self._artifacts: dict[str, Artifact] = {}
        self._promotions: dict[str, deque[Promotion]] = {}

    def put_labels(self, labels: Iterable[Labelled]) -> None:
        """As `CalibrationStore.put_labels`."""
        for label in labels:
            for name in _CLASSES:
                if (own := self._labels.get((label.tenant, name))) is not None:
                    own.remove(label.pcs_id)
            self._labels.setdefault((label.tenant, label.label), _Labels()).put(label)

    def list_labels(self, tenant: str | None, since_ms: int, limit: int) -> list[Labelled]:
        """As `CalibrationStore.list_labels`."""
        return newest_first(self._list_class(tenant, name, since_ms, max(0, limit)) for name in _CLASSES)

    def has_room(self, count: int) -> bool:
        """Whether so many more artifacts fit."""
        return not count or len(self._artifacts) + count <= ARTIFACTS_MAX

    def lacks(self, digest: str) -> bool:
        """Whether nothing is kept under a digest."""
        return digest not in self._artifacts

    def wants_word_of(self, digest: str, now_ms: int) -> bool:
        """Whether it is to be written down that an artifact is needed: it is new, or that was not said for long."""
        known = self._artifacts.get(digest)
        return known is None or known.needed_ms < now_ms - ARTIFACT_RENEWED_MS

    def keep(self, artifact: Artifact) -> None:
        """Keep an artifact; of a known one only the time counts, and the later one."""
        digest = digest_of(artifact.data)
        self._artifacts.setdefault(digest, artifact)
        self._need(digest, artifact.needed_ms)

    def fetch(self, digests: Sequence[str]) -> list[bytes | None]:
        """As `CalibrationStore.fetch`."""
        found = (self._artifacts.get(digest) for digest in digests)
        return [None if each is None else each.data for each in found]

    def may_promote(self, promotion: Promotion) -> bool:
        """Whether the set is kept and the version is the next one of its scope."""
        own = self._promotions.get(promotion.scope)
        return not self.lacks(promotion.digest) and promotion.version == (own[-1].version if own else 0) + 1

    def promote(self, promotion: Promotion) -> None:
        """Bring a set into force. What is known of this version and later ones goes: nobody was told of it."""
        own = self._promotions.setdefault(promotion.scope, deque(maxlen=PROMOTIONS_MAX))
        while own and own[-1].version >= promotion.version:
            own.pop()
        if own:
            self._need(own[-1].digest, promotion.promoted_at_ms)
        self._need(promotion.digest, promotion.promoted_at_ms)
        own.append(promotion)

    def list_promotions(self, scope: str | None, limit: int) -> list[Promotion]:
        """As `CalibrationStore.list_promotions`."""
        if scope is not None:
            return list(islice(reversed(self._promotions.get(scope, ())), max(0, limit)))
        return [self._promotions[each][-1] for each in sorted(self._promotions)[: max(0, limit)]]

    def purge(self, before_ms: int) -> int:
        """As `CalibrationStore.purge`."""
        in_force = {own[-1].digest for own in self._promotions.values()}
        gone = [
            digest
            for digest, each in self._artifacts.items()
            if each.needed_ms < before_ms and digest not in in_force
        ]
        for digest in gone:
            del self._artifacts[digest]
        return len(gone)

    def contents(self) -> Contents:
        """Return all of it, in lists of their own."""
        return Contents(
            labels=[label for own in self._labels.values() for label in own],
            artifacts=list(self._artifacts.values()),
            promotions=[each for own in self._promotions.values() for each in own],
        )

    def _need(self, digest: str, needed_ms: int) -> None:
        known = self._artifacts.get(digest)
        if known is not None and known.needed_ms < needed_ms:
            self._artifacts[digest] = known._replace(needed_ms=needed_ms)

    def _list_class(self, tenant: str | None, name: Label, since_ms: int, limit: int) -> list[Labelled]:
        listings = (
            own.newest_first(since_ms)
            for (whose, of), own in self._labels.items()
            if of == name and tenant in (None, whose)
        )
        return newest_first(listings, limit)


class _Labels:
    """Labels of one tenant and class, the newest `LABELS_MAX`."""

    def __init__(self) -> None:
        self._by_id: dict[str, Labelled] = {}
        self._order: list[
            tuple[int, str]
        ] = []  # by time; what comes is mostly the newest, so it is put at the end

    def __iter__(self) -> Iterator[Labelled]:
        return (self._by_id[pcs_id] for _, pcs_id in self._order)

    def put(self, label: Labelled) -> None:
        self._by_id[label.pcs_id] = label
        insort(self._order, (label.labelled_at_ms, label.pcs_id))
        if len(self._order) > LABELS_MAX:
            del self._by_id[self._order.pop(0)[1]]

    def remove(self, pcs_id: str) -> None:
        label = self._by_id.pop(pcs_id, None)
        if label is not None:
            del self._order[bisect_left(self._order, (label.labelled_at_ms, pcs_id))]

    def newest_first(self, since_ms: int) -> Iterator[Labelled]:
        for labelled_at_ms, pcs_id in reversed(self._order):
            if labelled_at_ms < since_ms:
                return
            yield self._by_id[pcs_id]
