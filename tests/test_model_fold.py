"""Folded scales at the edges of their fields, and the bound on what folding moves, against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

import model.export
from hwgen.errors import InputError
from model.export import SCALE_ERROR_LIMIT, export
from model.fold import MUL_LIMIT, SKIP_LIMIT, Folded, fold, scale_error
from model.networks import residual_network


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def folded(mul: float, skip: float = 0.0, bias: float = 0.0) -> Folded:
    return fold(doubles(mul), doubles(bias), skip)


@pytest.mark.parametrize("below", [0.25, 0.5, 0.75])
def test_a_multiplier_that_would_round_beyond_its_field_takes_a_shift_less(below: float) -> None:
    """Scales just below 2**17 / 2**20 and 2**24 / 2**20: what rounds up to the limit does not fit."""
    fits = below > 0.5
    made = folded((MUL_LIMIT - below) / 2**20)
    assert made.shift == (20 if fits else 19) and int(made.mul) == (MUL_LIMIT - 1 if fits else MUL_LIMIT // 2)
    made = folded(2.0**-9, (SKIP_LIMIT - below) / 2**20)
    assert made.shift == (20 if fits else 19) and made.skip_mul == (SKIP_LIMIT - 1 if fits else SKIP_LIMIT // 2)


def test_the_shift_goes_down_to_one_and_the_bias_bounds_it_too() -> None:
    assert folded(MUL_LIMIT / 2 - 1).shift == 1 and folded(float(MUL_LIMIT)).shift == 1  # which the network check refuses
    assert folded(2.0**-9, bias=2.0**26).shift == 19 and folded(2.0**-9, bias=2.0**26 - 1).shift == 20


def test_the_error_of_folding_is_the_worst_sum_of_three_roundings() -> None:
    """One channel that its bound on sums limits, one that the output's range does; a skip on both."""
    mul, bias, skip = (Fraction(1, 3), Fraction(5, 7)), (Fraction(-2, 9), Fraction(4, 11)), Fraction(3, 13)
    shift, limits, out_range, skip_limit = 4, (6, 10**6), 15, 255
    scale = 1 << shift
    whole = [[round(value * scale) for value in values] for values in (mul, bias)]
    made = Folded(doubles(*whole[0]), doubles(*whole[1]) + scale / 2, shift, round(skip * scale))
    errors = []
    for at, limit in enumerate(limits):
        reach = min(Fraction(limit), (out_range + abs(bias[at]) + skip * skip_limit) / mul[at])
        errors.append(
            reach * abs(Fraction(whole[0][at], scale) - mul[at]) + abs(Fraction(whole[1][at], scale) - bias[at])
        )
    expected = max(errors) + skip_limit * abs(Fraction(made.skip_mul, scale) - skip)
    arguments = (
        doubles(*map(float, mul)),
        doubles(*map(float, bias)),
        float(skip),
        torch.tensor(limits),
        out_range,
        skip_limit,
    )
    assert scale_error(made, *arguments) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("error", "refused"), [(1 / 8, False), (0.1251, True)])
def test_an_eighth_of_a_step_is_the_most_that_folding_may_move(
    error: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = residual_network("net", (8, 8, 1), 4, 10, 8, [(8, 1, 1)], shortcut="a", weight_bits=(3,), activation_bits=(3,))
    monkeypatch.setattr(model.export, "scale_error", lambda *_: error)
    assert SCALE_ERROR_LIMIT == 1 / 8
    if refused:
        with pytest.raises(InputError, match=r"node '\w+.*can move a code by 0\.13 LSB, more than 1/8"):
            export(net)
    else:
        export(net)
