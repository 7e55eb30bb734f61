"""Parameters: the contract's defaults and the bounds of a file."""

from __future__ import annotations

import msgspec
import pytest

from pcs_core.errors import ParamsError
from pcs_core.params import Params, parse_params

WEIGHTS = ["alpha", "beta", "gamma", "base", "score_d_hat", "score_coh_star", "score_r"]
DIVISORS = ["score_d_hat_range", "score_r_middle"]
OTHERS = ["tol_d", "tol_coh", "tol_budget", "d0", "sticky_coh_min", "sticky_d_max", "non_sticky_d_min"]


def test_the_defaults_are_the_contracts() -> None:
    assert msgspec.structs.asdict(Params()) == {
        "version": "0.1",
        "tol_d": 0.15,
        "tol_coh": 0.05,
        "tol_budget": 0.01,
        "alpha": 0.30,
        "beta": 0.50,
        "gamma": 0.20,
        "base": 0.10,
        "d0": 2.2,
        "sticky_coh_min": 0.70,
        "sticky_d_max": 1.5,
        "non_sticky_d_min": 2.6,
        "score_d_hat": 0.35,
        "score_coh_star": 0.40,
        "score_r": 0.25,
        "score_d_hat_range": 3.5,
        "score_r_middle": 0.65,
    }


def test_a_file_replaces_what_it_names_and_keeps_the_rest() -> None:
    params = parse_params('version = "2026-11_a.1"\ntol_d = 0.2\nalpha = 1\n')
    assert params == Params(version="2026-11_a.1", tol_d=0.2, alpha=1.0)
    assert type(params.alpha) is float


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize(
    "text", ["-0.000001", "1.000001", "2", "-1", "nan", "inf", "-inf", "true", "'0.5'", "[0.5]"]
)
def test_a_weight_outside_0_to_1_is_refused_and_named(name: str, text: str) -> None:
    with pytest.raises(
        ParamsError, match=rf"^\$\.{name}: found .*; allowed: a weight: a finite number from 0 to 1$"
    ):
        parse_params(f'version = "1"\n{name} = {text}\n')


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("text", ["-0.000001", "1000.001", "-1", "nan", "inf", "true", "'0.5'", "2026-11-21"])
def test_a_tolerance_or_threshold_out_of_bounds_is_refused_and_named(name: str, text: str) -> None:
    with pytest.raises(
        ParamsError, match=rf"^\$\.{name}: found .*; allowed: a finite number from 0 to 1000$"
    ):
        parse_params(f'version = "1"\n{name} = {text}\n')


@pytest.mark.parametrize("name", DIVISORS)
@pytest.mark.parametrize("text", ["0", "0.0", "-0.0", "-1", "1000.001", "nan", "inf", "true", "'0.5'"])
def test_what_is_divided_by_is_above_0(name: str, text: str) -> None:
    with pytest.raises(
        ParamsError, match=rf"^\$\.{name}: found .*; allowed: a finite number above 0 and up to 1000$"
    ):
        parse_params(f'version = "1"\n{name} = {text}\n')
    for end in (5e-324, 1000.0):
        assert getattr(parse_params(f'version = "1"\n{name} = {end!r}\n'), name) == end


def test_a_file_from_before_the_score_means_what_it_meant() -> None:
    before = [*(name for name in WEIGHTS if not name.startswith("score_")), *OTHERS]
    text = 'version = "2026-10"\n' + "".join(f"{name} = 0.5\n" for name in before)
    assert parse_params(text) == Params(version="2026-10", **dict.fromkeys(before, 0.5))


@pytest.mark.parametrize("name", WEIGHTS + OTHERS)
@pytest.mark.parametrize("text", ["0", "0.0", "1", "1.0"])
def test_both_ends_of_the_bounds_are_taken(name: str, text: str) -> None:
    assert getattr(parse_params(f'version = "1"\n{name} = {text}\n'), name) == float(text)


def test_a_file_without_a_version_is_refused() -> None:
    for text in ("", "tol_d = 0.2\n"):
        with pytest.raises(ParamsError, match=r"^\$\.version: found nothing; allowed: 1 to 64 characters"):
            parse_params(text)


@pytest.mark.parametrize("version", ["''", "'a b'", "'ü'", "1", "0.1", "'" + "v" * 65 + "'", '"a\\n"'])
def test_a_version_that_cannot_be_stored_is_refused(version: str) -> None:
    with pytest.raises(ParamsError, match=r"^\$\.version: found "):
        parse_params(f"version = {version}\n")


@pytest.mark.parametrize("line", ["tolD = 0.2", "tol_D = 0.2", "[tol]\nd = 0.2", "comment = 'x'"])
def test_an_unknown_name_is_refused_with_the_known_ones(line: str) -> None:
    with pytest.raises(
        ParamsError,
        match=rf"^\$: found an unknown member '{line.split(' =', maxsplit=1)[0].strip('[]').partition(']')[0]}'; "
        "allowed: a table with only .*tol_d",
    ):
        parse_params(f'version = "1"\n{line}\n')


@pytest.mark.parametrize("text", ["tol_d", "tol_d = ", '{"tol_d": 0.2}', "tol_d = 0.1\ntol_d = 0.2", "\x00"])
def test_a_file_that_is_not_toml_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match=r"^not valid TOML: "):
        parse_params(text)


def test_a_file_nested_without_end_is_refused() -> None:
    with pytest.raises(ParamsError, match="nested without end"):
        parse_params("a=" + "[" * 60_000)


def test_number_of_thousands_of_digits_is_refused() -> None:
    """Found by fuzzing: tomllib does not raise it as its own error."""
    with pytest.raises(ParamsError, match="a number of thousands of digits"):
        parse_params('version = "1"\ntol_d = ' + "9" * 5_000)
