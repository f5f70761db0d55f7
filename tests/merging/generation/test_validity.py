import math

import pytest
import torch

from core.errors import (
    NonFiniteWeightsError,
    SampleNormError,
    SamplePeakError,
    SamplePerplexityError,
    SampleUnchangedError,
)
from merging.generation.validity import Limits, check_perplexity, check_weights


@pytest.fixture
def base():
    draws = torch.Generator().manual_seed(6)
    return {name: torch.empty(400).normal_(1.0, 0.3, generator=draws).bfloat16() for name in ("one", "two")}


def checked(base, sampled, **options):
    return check_weights(base.__getitem__, sampled, **options)


def test_a_small_change_passes_and_is_measured(base):
    sampled = {**base, "one": (base["one"].float() * 1.05).bfloat16()}
    found = checked(base, sampled)
    assert found.norm == pytest.approx(1.05, abs=0.002)
    assert found.norm_at == found.peak_at == "one"
    assert found.changed == pytest.approx(0.5, abs=0.01)
    assert found.distance == pytest.approx(0.05 / math.sqrt(2), rel=0.05)
    assert len(found.digest) == 64


def test_a_change_that_rounding_takes_away_is_refused(base):
    """Half of bfloat16's spacing at 1 is 2^-9: a change of a tenth of that is gone."""
    sampled = {name: (tensor.float() * (1 + 2e-4)).bfloat16() for name, tensor in base.items()}
    with pytest.raises(SampleUnchangedError, match=r"do: take a larger radius"):
        checked(base, sampled)


def test_a_sample_that_was_seen_before_is_refused(base):
    sampled = {name: -tensor for name, tensor in base.items()}
    seen = checked(base, sampled)
    assert seen.norm == 1.0
    with pytest.raises(SampleUnchangedError, match="equal to one"):
        checked(base, sampled, known=[seen.digest])


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_norm_out_of_range_is_refused_with_its_tensor(base, factor):
    with pytest.raises(SampleNormError, match="'two'") as refused:
        checked(base, {**base, "two": base["two"] * factor})
    assert refused.value.where == "two"
    checked(base, {**base, "two": base["two"] * factor}, limits=Limits(norm=(0.5, 2.0)))


def test_a_single_huge_weight_is_refused(base):
    sampled = {**base, "one": base["one"].clone()}
    sampled["one"][7] = 4.0
    with pytest.raises(SamplePeakError, match="'one'"):
        checked(base, sampled)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_first(base, value):
    sampled = {**base, "one": base["one"].clone()}
    sampled["one"][7] = value
    with pytest.raises(NonFiniteWeightsError):
        checked(base, sampled)


def test_perplexity_may_rise_so_far_and_no_further():
    assert check_perplexity(10.0, lambda: 14.9) == pytest.approx(1.49)
    for bad in (15.1, math.nan, math.inf):
        with pytest.raises(SamplePerplexityError):
            check_perplexity(10.0, lambda bad=bad: bad)
    assert check_perplexity(10.0, lambda: 30.0, Limits(perplexity=3.0)) == 3.0
