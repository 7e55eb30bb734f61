"""Whether scores still come from one place: a test that may be looked at after every score, for all time.

Each score gets a smoothed rank among all scores since the start. While scores are exchangeable these ranks are
independent and uniform, whatever the scores' distribution, so a capital that bets on them at fair odds is a martingale:
by Ville's inequality it ever reaches 1/FALSE_ALARM_SHARE in at most that share of starts. Ranks in a fixed or a sliding
set are dependent, and do not have that property (docs/statistics.md).

Bets are those of a jumper (Vovk and others, 2021): capital lies on a few fixed bets, and a small share of it is spread
evenly anew at each step, so that it finds the bet that pays now. The mean of martingales is one, so jumpers of several
such shares are run beside each other.

Pure, but for what the object holds. One is fed by one stream; nothing here is shared or locked.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left, bisect_right

FALSE_ALARM_SHARE = 0.01
"""Of starts in which an alarm ever comes, while scores are exchangeable."""

SCORES_MAX = 10_000
"""Scores since a start unless set otherwise; then it starts again. Eight bytes each."""

_JUMP_SHARES = (0.001, 0.01)
_LOG_LIMIT = -math.log(FALSE_ALARM_SHARE)


class ExchangeabilityMartingale:
    """A capital that grows as scores stop being exchangeable.

    Attributes:
        alarmed: Whether the capital reached its limit since the start. It stays so until the next one.
        alarms: Starts in which it did, this one included.
        restarts: Starts but the first. The bound on false alarms holds for each of them.
    """

    def __init__(self, seed: int, *, scores_max: int = SCORES_MAX) -> None:
        """Start.

        Args:
            seed: Of the numbers that break ties between equal scores; the same seed and scores give the same capital.
            scores_max: Scores after which it starts again, 1 or more.

        Raises:
            ValueError: `scores_max` is below 1.
        """
        if scores_max < 1:
            raise ValueError("scores_max must be 1 or more")
        self._random = random.Random(seed)  # noqa: S311 - it breaks ties and keeps no secret
        self._scores_max = scores_max
        self.alarms = 0
        self.restarts = -1
        self.restart()

    def restart(self) -> None:
        """Forget all scores and begin with a capital of 1: at the size bound, and when a new set came into force."""
        self.restarts += 1
        self.alarmed = False
        self._ascending = array("d")
        self._jumpers = [_Jumper(share) for share in _JUMP_SHARES]

    @property
    def size(self) -> int:
        """Scores since the start."""
        return len(self._ascending)

    @property
    def log10_capital(self) -> float:
        """The capital's decimal logarithm: 0 at the start, an alarm from 2 on."""
        return self._log_capital() / math.log(10)

    def observe(self, score: float) -> bool:
        """Take a score, in the order in which they came. At the size bound it starts again first.

        Returns:
            Whether this very score brought the alarm.

        Raises:
            ValueError: The score is not finite.
        """
        if not math.isfinite(score):
            raise ValueError("a score must be finite")
        if len(self._ascending) >= self._scores_max:
            self.restart()
        rank = self._smoothed_rank(score)
        for jumper in self._jumpers:
            jumper.bet(rank)
        # A mean reaches nothing that none of its parts does: almost always this ends here.
        if self.alarmed or max([jumper.log_capital for jumper in self._jumpers]) < _LOG_LIMIT:
            return False
        if self._log_capital() < _LOG_LIMIT:
            return False
        self.alarmed = True
        self.alarms += 1
        return True

    def _smoothed_rank(self, score: float) -> float:
        """Return the share of scores that are higher, with a random share of the equal ones, itself among them."""
        scores = self._ascending
        low = high = bisect_left(scores, score)
        if low < len(scores) and scores[low] == score:
            high = bisect_right(scores, score, low)
        scores.insert(high, score)
        equal = high - low + 1
        return (len(scores) - high - 1 + self._random.random() * equal) / len(scores)

    def _log_capital(self) -> float:
        logs = [jumper.log_capital for jumper in self._jumpers]
        most = max(logs)
        return most + math.log(sum([math.exp(log - most) for log in logs]) / len(logs))


class _Jumper:
    """Capital on bets 1 + ε·L(rank), of which a share is spread evenly at each step.

    L is the first or second Legendre polynomial on [0, 1]. Its mean is 0 and it is nowhere below −1, so each bet is fair
    and none makes debts. The first one's bets pay when scores go up or down, the second's when they spread or gather.
    """

    __slots__ = ("_kept", "_spread", "_stakes", "log_capital")

    def __init__(self, jump_share: float) -> None:
        bets = 7
        self.log_capital = 0.0
        self._stakes = (1 / bets,) * bets  # of the capital; they add up to 1
        self._kept = 1 - jump_share
        self._spread = jump_share / bets

    def bet(self, rank: float) -> None:
        """Bet on a rank in [0, 1]."""
        first = 2 * rank - 1
        second = 1.5 * first * first - 0.5
        half = 0.5 * first
        a, b, c, d, e, f, g = self._stakes
        # Written out rather than looped over: a third of the time, on the path of every score.
        b *= 1 + half
        c *= 1 - half
        d *= 1 + first
        e *= 1 - first
        f *= 1 + second
        g *= 1 - second
        total = a + b + c + d + e + f + g
        kept = self._kept / total
        spread = self._spread
        self._stakes = (
            a * kept + spread,
            b * kept + spread,
            c * kept + spread,
            d * kept + spread,
            e * kept + spread,
            f * kept + spread,
            g * kept + spread,
        )
        self.log_capital += math.log(total)
