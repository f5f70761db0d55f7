"""What every registered method promises. A new method is picked up from the registry and needs no line here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from core.params import FloatParam
from merging.methods import methods

ALL = sorted(methods())
WITH_BASE = [name for name in ALL if methods()[name].info.needs_base]
SYMMETRIC = [name for name in ALL if methods()[name].info.symmetric]
RANDOM = [name for name in ALL if methods()[name].info.random]


def count(name: str) -> int:
    """Three sources, or as many as the method takes."""
    info = methods()[name].info
    return max(info.min_sources, min(3, info.max_sources or 3))


def run(merge, name, arrays, base, **options):
    return merge(name, arrays, base=base if methods()[name].info.needs_base else None, **options)


def family(shape, scale=0.1):
    """A base and three tensors near it that float32 subtracts exactly (a coarse grid)."""
    generator = np.random.default_rng(7)
    base = generator.integers(-64, 64, size=shape)
    others = [base + generator.integers(-8, 9, size=shape) for _ in range(3)]
    return [(array / 64).astype(np.float32) for array in others], (base / 64).astype(np.float32)


@pytest.mark.parametrize("name", ALL)
def test_merging_a_model_with_itself_returns_it(merge, name):
    (one, *_), base = family((50, 30))
    params = {"normalize": True} if any(p.name == "normalize" for p in methods()[name].info.params) else {}
    out = run(merge, name, [one] * count(name), base, params=params).numpy()
    np.testing.assert_allclose(out, one, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("name", WITH_BASE)
def test_without_any_change_the_base_comes_back_byte_for_byte(merge, name):
    _, base = family((50, 30))
    assert np.array_equal(run(merge, name, [base] * count(name), base).numpy(), base)


@pytest.mark.parametrize("name", [name for name in ALL if any(p.name == "weight" for p in methods()[name].info.params)])
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_a_one_hot_weight_returns_that_parent(merge, name, chosen):
    arrays, base = family((50, 30))
    sources = [{"weight": float(i == chosen)} for i in range(3)]
    assert np.array_equal(run(merge, name, arrays, base, sources=sources).numpy(), arrays[chosen])


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_order_of_sources_does_not_matter_where_the_catalogue_says_so(merge, name):
    arrays, base = family((50, 30))
    # Masks belong to a source, not to a position, so random methods are compared without drawing.
    sources = [{"weight": w, **({"density": 0.6} if name == "ties" else {})} for w in (0.5, 0.25, 1.0)]
    first = run(merge, name, arrays, base, sources=sources).numpy()
    for order in itertools.permutations(range(3)):
        other = run(merge, name, [arrays[i] for i in order], base, sources=[sources[i] for i in order]).numpy()
        np.testing.assert_allclose(other, first, rtol=0, atol=3e-7)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(7,), (1,), (1, 1), (3, 1, 2)])
def test_vectors_and_single_elements_keep_their_shape(merge, name, shape):
    arrays, base = family(shape)
    out = run(merge, name, arrays[: count(name)], base)
    assert tuple(out.shape) == shape
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", ALL)
def test_zero_tensors_merge_to_zero(merge, name):
    zero = np.zeros((6, 5), dtype=np.float32)
    assert not run(merge, name, [zero] * count(name), zero).any()


@pytest.mark.parametrize("name", ALL)
def test_the_narrow_result_is_the_float32_result_rounded_once(merge, name):
    arrays, base = (lambda a, b: ([x * 0.37 for x in a], b * 0.37))(*family((40, 33)))
    wide = run(merge, name, arrays[: count(name)], base)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(run(merge, name, arrays[: count(name)], base, dtype=dtype), wide.to(dtype))


@pytest.mark.parametrize("name", ALL)
def test_the_scale_multiplies_the_result_in_float32(merge, name):
    arrays, base = family((40, 33))
    out = run(merge, name, arrays[: count(name)], base, scale=1.7).numpy()
    assert np.array_equal(out, run(merge, name, arrays[: count(name)], base).numpy() * np.float32(1.7))


@pytest.mark.parametrize("name", ALL)
def test_sources_are_never_written_to(merge, name):
    arrays, base = family((40, 33))
    before = [array.copy() for array in (*arrays, base)]
    run(merge, name, [torch.from_numpy(a) for a in arrays[: count(name)]], torch.from_numpy(base), scale=2.0)
    assert all(np.array_equal(now, then) for now, then in zip((*arrays, base), before, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_may_stand_at_its_bounds(merge, name):
    arrays, base = family((20, 11))
    for spec in methods()[name].info.params:
        if not isinstance(spec, FloatParam):
            continue
        for value in {spec.low if spec.low is not None else spec.search_low, spec.search_high}:
            scope = (
                {"sources": [{spec.name: value}] * count(name)}
                if spec.scope == "source"
                else {"params": {spec.name: value}}
            )
            if spec.name == "weight" and value == 0.0:
                scope["params"] = {"normalize": False}
            assert torch.isfinite(run(merge, name, arrays[: count(name)], base, **scope)).all()


@pytest.mark.parametrize("name", ALL)
def test_the_bytes_do_not_depend_on_the_number_of_threads_or_on_how_the_tensor_lies_in_memory(merge, name):
    generator = np.random.default_rng(1)
    *arrays, base = [torch.from_numpy(generator.normal(size=(300, 1100)).astype(np.float32)) for _ in range(4)]
    options = {"sources": [{"density": 0.4}] * count(name)} if name in ("ties", "dare_ties") else {}
    once = run(merge, name, arrays[: count(name)], base, **options)
    strided = [a.t().contiguous().t() for a in arrays[: count(name)]]
    threads = torch.get_num_threads()
    try:
        for number in (2, 3):
            torch.set_num_threads(number)
            assert torch.equal(run(merge, name, strided, base, **options), once)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_repeat_themselves_and_never_touch_the_global_generator(merge, name):
    arrays, base = family((40, 33))
    state = torch.get_rng_state()
    options = {"sources": [{"density": 0.5}] * 3}
    assert torch.equal(run(merge, name, arrays, base, **options), run(merge, name, arrays, base, **options))
    assert torch.equal(torch.get_rng_state(), state)
