"""Gates for tests and benchmarks, over sets with given scores; and services that begin with such a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pcs_backend.app import real_ports
from pcs_backend.config import load_config
from pcs_backend.conformal.calibration import GLOBAL_SCOPE, CalibrationSet, Label, Promotion, Weighting
from pcs_backend.conformal.density_ratio import DensityRatio
from pcs_backend.conformal.gate import Gate, Side, side_of
from pcs_backend.conformal.provenance import SetName, digest_of, encode_params
from pcs_backend.conformal.scores import score_from
from pcs_backend.engine import Engine, offline
from pcs_core.params import Params


def set_of(
    benign: Sequence[float],
    bad: Sequence[float],
    *,
    scope: str = GLOBAL_SCOPE,
    alpha: float = 0.05,
    delta: float = 0.05,
) -> CalibrationSet:
    """Return a set of the weighted score with these scores."""
    return CalibrationSet(
        scope=scope,
        score="weighted",
        score_parameters=score_from("weighted", "{}", Params()).parameters,
        alpha=alpha,
        delta=delta,
        benign=tuple(sorted(benign)),
        bad=tuple(sorted(bad)),
        made_at_ms=1_700_000_000_000,
    )


def weighted_set_of(found: CalibrationSet, ratio: DensityRatio, *, heavy: int) -> CalibrationSet:
    """Return the set with a ratio of two pieces, whose second one is that of the highest scores of each class.

    Args:
        found: The set.
        ratio: Of two pieces.
        heavy: How many scores of each class are of the second piece.
    """

    def weights(scores: Sequence[float]) -> tuple[float, ...]:
        light = max(0, len(scores) - heavy)
        return (ratio.ratios[0],) * light + (ratio.ratios[1],) * (len(scores) - light)

    weighting = Weighting(ratio, weights(found.benign), weights(found.bad))
    return msgspec.structs.replace(found, weighting=weighting)


def gate_of(own: CalibrationSet | None, *, fallback: CalibrationSet | None = None, version: int = 1) -> Gate:
    """Return a gate over a set, or over nothing, and over another where that has too few scores of a class."""

    def side(label: Label) -> Side | None:
        for found in (own, fallback):
            if found is not None:
                score = score_from(found.score, found.score_parameters, Params())
                if (it := side_of(found, SetName(found.digest, version), score, label)) is not None:
                    return it
        return None

    return Gate(side("benign"), side("bad"), digest_of(encode_params(Params())))


async def promote(environ: Mapping[str, str], *found: CalibrationSet) -> None:
    """Bring sets into force in the store of a service that does not run.

    Args:
        environ: The service's.
        found: The sets, each the next of its scope.
    """
    engine = Engine(load_config(environ), real_ports())
    async with offline(engine, must_exist=False):
        await engine.store.open()
        await engine.calibrations.keep([each.encoded for each in found])
        newest = {each.scope: each.version for each in await engine.calibrations.list_promotions(None, 1_000)}
        for each in found:
            newest[each.scope] = newest.get(each.scope, 0) + 1
            promotion = Promotion(
                scope=each.scope,
                version=newest[each.scope],
                digest=each.digest,
                by="a test",
                note="",
                promoted_at_ms=each.made_at_ms,
            )
            assert await engine.calibrations.promote(promotion) is True
