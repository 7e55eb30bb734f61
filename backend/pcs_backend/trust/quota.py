"""What a sender that is told to wait learns of the limit it met: the fields of draft-ietf-httpapi-ratelimit-headers-11.

`RateLimit-Policy` says how many units there are in how many seconds, `RateLimit` how many are left and when there are
more. The unit here is the record, also where many of them come in one request.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Quota(NamedTuple):
    """A limit, and what is left of it.

    Attributes:
        name: Of the policy.
        records: Records in one window.
        window_s: Seconds of it.
        left: Records that may still come now.
    """

    name: str
    records: int
    window_s: int
    left: int = 0

    def headers(self, wait_s: int) -> dict[str, str]:
        """Return the fields of an answer that refuses.

        Args:
            wait_s: Whole seconds, at least 1, after which what was refused may come again.
        """
        return {
            "Retry-After": str(wait_s),
            "RateLimit-Policy": f'"{self.name}";q={self.records};w={self.window_s}',
            "RateLimit": f'"{self.name}";r={self.left};t={wait_s}',
        }


def rate_quota(name: str, rate: float, left: int) -> Quota:
    """Return the quota of a rate: the whole records of one burst, in the whole seconds in which they come back.

    Args:
        name: Of the policy.
        rate: Records a second, above 0.
        left: Records that may still come now.
    """
    records = max(1, int(rate))
    return Quota(name, records, math.ceil(records / rate), left)
