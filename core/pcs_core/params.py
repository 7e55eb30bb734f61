"""Tolerances, weights and thresholds of the checks (contract §3): the only place that holds them.

A parameter file is TOML with a `version` and any of the names below; what it leaves out keeps its default. Widening a
tolerance in a release needs an ADR and a line in the changelog.
"""

from __future__ import annotations

import tomllib
from typing import Annotated

import msgspec
from msgspec import Meta

from pcs_core.errors import MalformedError, ParamsError
from pcs_core.redact import redact
from pcs_core.typed import convert

_Weight = Annotated[float, Meta(ge=0, le=1)]
_Tolerance = Annotated[float, Meta(ge=0, le=1_000)]
_Threshold = Annotated[float, Meta(ge=0, le=1_000)]
_Divisor = Annotated[float, Meta(gt=0, le=1_000)]
_VERSION_PATTERN = r"\A[A-Za-z0-9._-]{1,64}\Z"


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parameters of one version, as stored with every outcome.

    Attributes:
        version: Names this set; stored with every outcome.
        tol_d: Largest difference of claimed and recomputed D̂.
        tol_coh: How far coh★ may pass 1.
        tol_budget: Largest difference of claimed and recomputed budget.
        alpha: Weight of incompressibility in the budget.
        beta: Weight of dimension above `d0`.
        gamma: Weight of coherence.
        base: Budget of a stream without any of these.
        d0: Dimension from which on the budget grows.
        sticky_coh_min: Least coh★ of a sticky stream.
        sticky_d_max: Greatest D̂ of a sticky stream.
        non_sticky_d_min: Least D̂ of a non-sticky stream.
        score_d_hat: Weight of a low D̂ in the weighted score.
        score_coh_star: Weight of a low coh★ in it.
        score_r: Weight of an r far from `score_r_middle` in it.
        score_d_hat_range: D̂ from which on it adds nothing to the score.
        score_r_middle: r that adds nothing to the score.
    """

    version: Annotated[str, Meta(pattern=_VERSION_PATTERN)] = "0.1"
    tol_d: _Tolerance = 0.15
    tol_coh: _Tolerance = 0.05
    tol_budget: _Tolerance = 0.01
    alpha: _Weight = 0.30
    beta: _Weight = 0.50
    gamma: _Weight = 0.20
    base: _Weight = 0.10
    d0: _Threshold = 2.2
    sticky_coh_min: _Threshold = 0.70
    sticky_d_max: _Threshold = 1.5
    non_sticky_d_min: _Threshold = 2.6
    score_d_hat: _Weight = 0.35
    score_coh_star: _Weight = 0.40
    score_r: _Weight = 0.25
    score_d_hat_range: _Divisor = 3.5
    score_r_middle: _Divisor = 0.65


_NAME_CHARACTERS_MAX = 64
_WEIGHTS = ("alpha", "beta", "gamma", "base", "score_d_hat", "score_coh_star", "score_r")
_DIVISORS = ("score_d_hat_range", "score_r_middle")
_ALLOWED = dict.fromkeys(Params.__struct_fields__, "a finite number from 0 to 1000") | {
    "version": "1 to 64 characters of A-Z a-z 0-9 . _ -",
    **dict.fromkeys(_WEIGHTS, "a weight: a finite number from 0 to 1"),
    **dict.fromkeys(_DIVISORS, "a finite number above 0 and up to 1000"),
    "": "a table with only these names: " + ", ".join(Params.__struct_fields__),
}


def parse_params(text: str) -> Params:
    r"""Read a parameter file's text.

    Args:
        text: TOML; `version` is required in a file, so that outcomes can name what judged them.

    Raises:
        ParamsError: Not TOML, an unknown name, a missing version or a value out of bounds.

    >>> parse_params('version = "2026-11"\ntol_d = 0.1').tol_d
    0.1
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParamsError(f"not valid TOML: {error}") from None
    except RecursionError:
        raise ParamsError("not valid TOML: nested without end") from None
    except ValueError:
        raise ParamsError("not valid TOML: a number of thousands of digits") from None
    unknown = sorted(set(table) - set(Params.__struct_fields__))
    if unknown:
        name = redact(repr(unknown[0][:_NAME_CHARACTERS_MAX]))
        raise ParamsError(f"$: found an unknown member {name}; allowed: {_ALLOWED['']}")
    try:
        params = convert(table, Params, _ALLOWED)
    except MalformedError as error:
        raise ParamsError(str(error)) from None
    if "version" not in table:
        raise ParamsError(f"$.version: found nothing; allowed: {_ALLOWED['version']}")
    return params
