"""What every registered method promises. A new method is picked up from the registry and needs no line here."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import merging.blocks
import merging.compute
from core.errors import RecipeError
from core.params import ChoiceParam, IntParam
from merging.compiled import Compiler
from merging.compute import compute
from merging.methods import methods
from merging.plan import plan
from tests.conformance.registry import grid, ways
from tests.merging.test_compiled import needs_compiler

WAYS = ways()
ALL = pytest.mark.parametrize("way", WAYS, ids=[way.id for way in WAYS])


def only(chosen):
    found = [way for way in WAYS if chosen(way)]
    return pytest.mark.parametrize("way", found, ids=[way.id for way in found])


IDEMPOTENT = only(lambda way: way.info.idempotent)
ON_A_BASE = only(lambda way: way.based)
WEIGHTED = only(lambda way: "weight" in way.specs and way.info.idempotent)
SYMMETRIC = only(lambda way: way.info.symmetric)
RANDOM = only(lambda way: way.info.random)
THINNING = only(lambda way: "density" in way.specs)
SPECS = [
    pytest.param(m.info, spec, id=f"{n}-{spec.name}") for n, m in sorted(methods().items()) for spec in m.info.params
]


@IDEMPOTENT
@pytest.mark.parametrize("shape", [(50, 30), (33,), (1, 9), (1,)])
def test_merging_a_model_with_itself_returns_it(way, shape):
    (one, *_), base = grid(shape)
    out = way([one] * way.count, base, {"weight": 1 / way.count}).numpy()
    np.testing.assert_allclose(out, one, rtol=3e-7, atol=1e-7)


@ON_A_BASE
def test_without_any_change_the_base_comes_back_byte_for_byte(way):
    _, base = grid((50, 30))
    assert np.array_equal(way([base] * way.count, base, way.active).numpy(), base)


@WEIGHTED
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_a_one_hot_weight_returns_that_parent(way, chosen):
    arrays, base = grid((50, 30))
    chosen = min(chosen, way.count - 1)
    sources = [{"weight": float(i == chosen)} for i in range(way.count)]
    np.testing.assert_allclose(way(arrays, base, sources=sources).numpy(), arrays[chosen], rtol=0, atol=2e-7)


@SYMMETRIC
def test_the_order_of_sources_does_not_matter_where_the_catalogue_says_so(way):
    arrays, base = grid((50, 30))
    # Masks belong to a source; here they would stay with a position, so methods that draw keep everything.
    density = 1.0 if way.info.random else 0.6
    sources = [{"density": density, "weight": weight} for weight in (0.5, 0.25, 1.0)][: way.count]
    first = way(arrays, base, sources=sources).numpy()
    for order in itertools.permutations(range(way.count)):
        other = way([arrays[i] for i in order], base, sources=[sources[i] for i in order]).numpy()
        np.testing.assert_allclose(other, first, rtol=0, atol=3e-7)


@ALL
@pytest.mark.parametrize("shape", [(7,), (1,), (1, 1), (1, 6), (6, 1), (3, 1, 2)])
def test_vectors_rows_and_single_elements_keep_their_shape_and_stay_near_their_parents(way, shape):
    arrays, base = grid(shape)
    out = way(arrays, base, way.active)
    assert tuple(out.shape) == shape
    assert out.abs().max() <= 3 * np.abs([*arrays, base]).max()


@ALL
def test_zero_tensors_merge_to_zero(way):
    zero = np.zeros((6, 5), dtype=np.float32)
    assert not way([zero] * way.count, zero, way.active).any()


@ALL
@pytest.mark.parametrize("kind", ["opposite", "one zero", "all but one zero", "parallel"])
@pytest.mark.parametrize("middle", [0.0, 0.25])
def test_where_directions_say_nothing_the_result_is_finite_and_no_larger_than_what_went_in(way, kind, middle):
    one, other, third = (array - 0.25 for array in grid((12, 10))[0])
    zero = np.zeros_like(one)
    changes = {
        "opposite": [one, -one, third],
        "one zero": [zero, other, third],
        "all but one zero": [zero, zero, third],
        "parallel": [one, 2 * one, 3 * one],
    }[kind]
    base = np.full_like(one, middle)
    arrays = [base + change for change in changes][-way.count :]
    share = 1 / way.count
    out = way(arrays, base, {**way.active, "weight": share, "score_calibration_value": share})
    rescaled = 2 if "rescale" in way.specs else 1
    assert out.abs().max() <= 1.01 * rescaled * sum(np.abs(array).max() for array in (*arrays, base))


@ALL
def test_the_narrow_result_is_the_float32_result_rounded_once(way):
    arrays, base = grid((40, 33))
    for dtype in (torch.bfloat16, torch.float16):
        narrow = [torch.tensor(array * 0.37).to(dtype) for array in (*arrays, base)]
        *others, narrow_base = narrow
        wide = way([tensor.float() for tensor in others], narrow_base.float(), way.active)
        assert torch.equal(way(others, narrow_base, way.active, dtype=dtype), wide.to(dtype))


@ALL
def test_the_scale_multiplies_the_result_in_float32(way):
    arrays, base = grid((40, 33))
    plain = way(arrays, base, way.active).numpy()
    assert np.array_equal(way(arrays, base, way.active, scale=1.7).numpy(), plain * np.float32(1.7))


@ALL
def test_sources_are_never_written_to(way):
    arrays, base = grid((40, 33))
    before = [array.copy() for array in (*arrays, base)]
    way([torch.from_numpy(array) for array in arrays], torch.from_numpy(base), way.active, scale=2.0)
    assert all(np.array_equal(now, then) for now, then in zip((*arrays, base), before, strict=True))


@ALL
def test_every_parameter_may_stand_at_the_ends_of_what_is_searched(way):
    arrays, base = grid((20, 11))
    for spec in way.info.params:
        values = spec.choices if isinstance(spec, ChoiceParam) else (spec.low, spec.search_low, spec.search_high)
        for value in {value for value in values if value is not None}:
            settings = {spec.name: value}
            if settings == {"weight": 0.0}:
                settings["normalize"] = False
            assert torch.isfinite(way(arrays, base, settings)).all(), settings


@pytest.mark.parametrize(("info", "spec"), SPECS)
def test_a_value_at_its_bound_is_accepted_and_one_just_outside_is_refused(info, spec, family):
    for value in _legal(spec):
        _resolved(family, info, spec, value)
    for value in _illegal(spec):
        with pytest.raises(RecipeError, match=spec.name):
            _resolved(family, info, spec, value)


def _legal(spec):
    if isinstance(spec, ChoiceParam):
        return spec.choices
    return [value for value in (spec.low, spec.high, spec.search_low, spec.search_high) if value is not None]


def _illegal(spec):
    if isinstance(spec, ChoiceParam):
        return ["no such choice", 17]
    whole = isinstance(spec, IntParam)
    found = [math.inf, math.nan, "0.5", True] + ([spec.search_low + 0.5] if whole else [])
    if spec.low is not None:
        found.append(spec.low - 1 if whole else math.nextafter(spec.low, -math.inf))
    if spec.high is not None:
        found.append(spec.high + 1 if whole else math.nextafter(spec.high, math.inf))
    return found


def _resolved(family, info, spec, value):
    sources = ("a", "b", "c")[: max(info.min_sources, min(2, info.max_sources or 2))]
    params = {spec.name: value}
    if params == {"weight": 0.0}:
        # A sum of weights that is zero is another rule's matter.
        params["weight"] = {name: float(name != "a") for name in sources}
    base = "base" if info.needs_base else None
    return family.recipe(merge={"method": info.name, "base": base, "sources": list(sources), "params": params})


@ALL
def test_the_bytes_do_not_depend_on_threads_blocks_or_how_the_tensor_lies_in_memory(way, monkeypatch):
    generator = np.random.default_rng(1)
    *arrays, base = [torch.from_numpy(generator.normal(size=(90, 1000)).astype(np.float32)) for _ in range(4)]
    once = way(arrays, base, way.active)
    strided = [array.t().contiguous().t() for array in arrays]
    threads = torch.get_num_threads()
    try:
        for number, size in ((2, 1 << 14), (3, 1 << 20)):
            torch.set_num_threads(number)
            monkeypatch.setitem(merging.blocks.SIZES, "cpu", size)
            assert torch.equal(way(strided, base, way.active), once)
    finally:
        torch.set_num_threads(threads)


def compiled_cases():
    """Every method as it is by default in both dtypes, and once with all its flags at another choice."""
    for way in WAYS:
        if way.info.elementwise:
            yield pytest.param(way, torch.float32, {}, id=f"{way.id}-float32")
            yield pytest.param(way, torch.bfloat16, {}, id=f"{way.id}-bfloat16")
            if flags := way.flipped:
                yield pytest.param(way, torch.bfloat16, flags, id=f"{way.id}-bfloat16-flags")


@needs_compiler
@pytest.mark.parametrize(("way", "dtype", "flags"), compiled_cases())
def test_compiled_and_as_it_stands_the_bytes_are_the_same(way, dtype, flags, monkeypatch):
    generator = np.random.default_rng(1)
    *arrays, base = [torch.from_numpy(generator.normal(size=(70, 1000))).to(dtype) for _ in range(4)]
    values = {**way.active, **flags}
    plain = way(arrays, base, values, dtype=dtype)
    compiler = Compiler("always")
    monkeypatch.setattr(merging.compute, "AS_IT_STANDS", compiler)
    whole = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(way(arrays, base, values, dtype=dtype).view(whole), plain.view(whole))
    assert compiler._failures == 0
    # Powers and exponentials are left to torch.
    assert all(compiler._kernels.values()) or (way.info.name == "delta_guided" and flags)
    # A plain passthrough is a copy, which there is nothing to compile about.
    assert compiler._kernels or way.info.name == "passthrough"


def test_the_cases_that_are_compiled_turn_every_flag_there_is():
    for way in WAYS:
        flags = {spec.name: spec for spec in way.info.params if isinstance(spec, ChoiceParam)}
        assert way.flipped.keys() == flags.keys()
        assert all(way.flipped[name] != spec.default for name, spec in flags.items())


@ALL
def test_methods_repeat_themselves_and_never_touch_the_global_generator(way):
    arrays, base = grid((40, 33))
    state = torch.get_rng_state()
    assert torch.equal(way(arrays, base, way.active), way(arrays, base, way.active))
    assert torch.equal(torch.get_rng_state(), state)


@RANDOM
def test_only_another_seed_draws_other_masks(way):
    arrays, base = grid((40, 33))
    one, other = (way(arrays, base, way.active, seed=seed) for seed in (1, 2))
    assert not torch.equal(one, other)


@only(lambda way: way.info.random and way.info.symmetric and way.info.needs_base)
def test_a_mask_belongs_to_its_source_wherever_that_stands(way, family):
    parents, found = family.parents(), []
    for sources in (("a", "b"), ("b", "a")):
        params = {name: value for name, value in way.active.items() if name in way.specs}
        recipe = family.merge(way.info.name, sources, **params)
        found.append([compute(planned, parents).numpy() for planned in plan(recipe, parents.headers)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-7)


@only(lambda way: not way.info.random)
def test_methods_that_the_catalogue_calls_deterministic_ignore_the_seed(way):
    arrays, base = grid((40, 33))
    one, other = (way(arrays, base, way.active, seed=seed) for seed in (1, 2))
    assert torch.equal(one, other)


@THINNING
def test_what_a_lower_density_keeps_lies_inside_what_a_higher_one_keeps(way):
    generator = np.random.default_rng(3)
    change, base = generator.normal(size=(60, 41)).astype(np.float32), np.zeros((60, 41), np.float32)
    kept = [way([change], base, {"density": density}).numpy() != 0 for density in (0.3, 0.5, 0.7)]
    assert 0 < kept[0].sum() < kept[1].sum() < kept[2].sum() < change.size
    for low, high in itertools.pairwise(kept):
        assert not (low & ~high).any()


@ALL
def test_the_parameters_that_are_called_smooth_are_there_and_are_numbers(way):
    assert all(way.specs[name].kind == "float" for name in way.info.smooth)
