"""Step 8 for each record of a request: is it what it says of itself (contract §4)?

The checks of `pcs_core.verify` in the order they have there, each for many records at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import msgspec

from pcs_backend.bulk import Verified, verify_many
from pcs_backend.conformal.gate import Gate
from pcs_backend.conformal.in_force import Gates
from pcs_backend.examine import Examined
from pcs_backend.trust.policy import Trust
from pcs_core.direction_proof import Directions, check_directions
from pcs_core.params import Params
from pcs_core.ports import Offload
from pcs_core.verify import NOT_ASKED, Verdict


class Judged(msgspec.Struct, frozen=True, gc=False):
    """What the checks found of a record, and what it was held against.

    Attributes:
        verdict: What they found.
        directions: What was asked of its directions.
        gate: Its tenant's; `None` where neither a gate nor labels are wanted.
    """

    verdict: Verdict
    directions: Directions = NOT_ASKED
    gate: Gate | None = None


class Checker:
    """Checks records by what is trusted, the parameters and the sets that are in force."""

    def __init__(
        self, *, trust: Callable[[], Trust], params: Params, gates: Gates | None, offload: Offload
    ) -> None:
        """Take what it checks by.

        Args:
            trust: What is trusted now.
            params: In force.
            gates: What calibrated thresholds say; `None` where neither they nor labels are wanted.
            offload: Where proofs are checked.
        """
        self._trust = trust
        self._params = params
        self._gates = gates
        self._offload = offload

    @property
    def may_wait(self) -> bool:
        """Whether a check waits for another thread, or for sets that were not read yet."""
        return bool(self._trust().direction_keys) or (self._gates is not None and not self._gates.are_read)

    async def check(self, examined: Sequence[Examined]) -> list[Judged]:
        """Check records that are signed and their own, in order.

        Raises:
            StoreUnavailableError: Calibration sets are wanted and could not be read yet.
        """
        verified = verify_many([each.record for each in examined], self._params)
        asked: Sequence[Directions] = [NOT_ASKED] * len(examined)
        trust = self._trust()
        if trust.direction_keys:
            asked = [
                trust.directions(each.record, each.author.tenant, each.entry.received.request)
                for each in examined
            ]
            verified = await self._check_directions(examined, verified, asked)
        if self._gates is None:
            return list(map(Judged, verified.verdicts, asked))
        await self._gates.load()
        return self._decide(self._gates, examined, verified, asked)

    async def _check_directions(
        self, examined: Sequence[Examined], verified: Verified, asked: Sequence[Directions]
    ) -> Verified:
        """Add what is wrong with directions. Proofs cost half a millisecond each, so they are checked off the loop."""
        pairs = [(each.record, directions) for each, directions in zip(examined, asked, strict=True)]
        if any(record.direction_proof is not None for record, _ in pairs):
            wrong = await self._offload.run(lambda: [check_directions(*each) for each in pairs])
        else:
            wrong = [check_directions(*each) for each in pairs]
        return verified._replace(
            reasons=[
                reasons if reason is None else (*reasons, reason)
                for reasons, reason in zip(verified.reasons, wrong, strict=True)
            ]
        )

    def _decide(
        self,
        gates: Gates,
        examined: Sequence[Examined],
        verified: Verified,
        asked: Sequence[Directions],
    ) -> list[Judged]:
        """Add what each tenant's gate says."""
        tenants = {each.author.tenant for each in examined}
        if len(tenants) == 1:
            gate = gates.gate(tenants.pop())
            decided = gate.decide_all(verified, [each.record for each in examined])
            return list(map(Judged, decided, asked, itertools.repeat(gate)))
        by_tenant: dict[str, list[int]] = {}
        for position, each in enumerate(examined):
            by_tenant.setdefault(each.author.tenant, []).append(position)
        judged: dict[int, Judged] = {}
        for tenant, positions in by_tenant.items():
            gate = gates.gate(tenant)
            decided = gate.decide_all(
                verified.at(positions), [examined[position].record for position in positions]
            )
            for position, verdict in zip(positions, decided, strict=True):
                judged[position] = Judged(verdict, asked[position], gate)
        return [judged[position] for position in range(len(examined))]
