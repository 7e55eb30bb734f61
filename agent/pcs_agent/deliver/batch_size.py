"""How many records the next request may hold: what was learned of the backend, and of the way to it.

- Until a batch was answered it is not known whether the backend takes batches: one request at a time goes out.
- A backend that refuses the batch as such gets single submits, and one more batch after `BATCH_RECHECK_S`.
- A batch that fails as a whole halves what the next ones hold, an answered one doubles it: a slow link, a quota smaller
  than a batch or a record that nobody can answer ends with single submits that harm no others.
- A batch that is too large (413) halves it for as long as this process lives; where that comes down to one record, batches
  count as refused.
"""

from __future__ import annotations

from pcs_core.ports import MonotonicClock

BATCH_RECORDS_MAX = 1_000
"""Records of one batch, most (contract §4)."""

BATCH_RECHECK_S = 600.0
"""A backend that took no batches is asked again after so long: it may have been replaced by a newer one."""


class BatchSize:
    """The number of records a request may hold.

    Attributes:
        is_known: Whether the backend is known to take batches, or not to.
    """

    def __init__(self, records_max: int, monotonic: MonotonicClock) -> None:
        """Begin with the largest.

        Args:
            records_max: Records of a request, 1 … `BATCH_RECORDS_MAX`; 1 for single submits only.
            monotonic: For the time of the next try.
        """
        self._records_max = records_max
        self._monotonic = monotonic
        self._largest = self._size = records_max
        self._single_until_s = float("-inf")
        self._was_answered = False

    @property
    def is_known(self) -> bool:
        """Whether the backend is known to take batches, or not to."""
        return self._was_answered or self.records() == 1

    def records(self) -> int:
        """Return how many records the next request may hold."""
        return 1 if self._monotonic() < self._single_until_s else self._size

    def note_answered(self, records: int) -> None:
        """A request of so many records was answered, record by record."""
        self._was_answered = self._was_answered or records > 1
        if records >= self._size:
            self._size = min(self._largest, 2 * records)

    def note_failed(self, records: int) -> None:
        """A batch of so many records got no answer of its own for each record."""
        self._size = min(self._size, _half(records))

    def note_too_large(self, records: int) -> None:
        """A batch of so many records was too large."""
        self._largest = min(self._largest, _half(records))
        self._size = min(self._size, self._largest)
        if self._largest == 1:
            self.note_refused()

    def note_refused(self) -> None:
        """The backend takes no batches."""
        self._single_until_s = self._monotonic() + BATCH_RECHECK_S
        self._largest = self._size = self._records_max
        self._was_answered = False


def _half(records: int) -> int:
    return max(1, records // 2)
