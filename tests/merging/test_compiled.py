"""Compiled kernels: the same bytes, one kernel for all candidates, and nothing lost where compiling fails."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import merging.compiled as compiled
from core.params import ChoiceParam
from merging.batches import Task
from merging.blocks import run
from merging.compiled import Compiler
from merging.expressions import source_of
from merging.kernels import Inputs
from merging.methods import methods
from merging.native import Native
from merging.randomness import mask_key
from merging.variants import variant_of

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="compiling needs a C++ compiler, none is installed"
)
SIZES = (70 * 1000, 3 * 4096, 1009, 257 * 3, 5, 1)


def task(method, size=SIZES[0], dtype=torch.float32, *, seed=1, scale=1.0, exact=True, sources=None, **values):
    """One tensor of three sources (or as many as told) and a base, to be merged."""
    info, generator = methods()[method].info, np.random.default_rng(seed)
    count = sources or info.max_sources or 3
    tensors = [torch.from_numpy(generator.normal(size=size)).to(dtype) for _ in range(count + info.needs_base)]
    given = {spec.name: values.get(spec.name, spec.default) for spec in info.params}
    scopes = {spec.name: spec.scope for spec in info.params}
    own = {name: value for name, value in given.items() if scopes[name] == "source"}
    inputs = Inputs(
        tensors=tuple(tensors),
        shape=(size,),
        name="weight",
        base=count if info.needs_base else None,
        params={name: value for name, value in given.items() if scopes[name] != "source"},
        source_params=({**own},) * count + (({},) if info.needs_base else ()),
        keys=tuple(mask_key(5, str(i), "weight") for i in range(len(tensors))),
        content=tuple(f"{seed}/{size}/{i}" for i in range(len(tensors))),
    )
    return Task(methods()[method].kernel(inputs), inputs, torch.empty(size, dtype=dtype), scale, exact)


def outcome(compiler, tasks):
    """The bytes of every result."""
    compiler.run(tasks)
    return [each.out.view(torch.uint8).clone() for each in tasks]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture
def failing(monkeypatch):
    """A compiler that always fails; gives how often it was asked."""
    asked: list[compiled.Variant] = []

    def fail(variant, sample, source):
        asked.append(variant)
        raise RuntimeError("no such compiler")

    monkeypatch.setattr(compiled, "compile_variant", fail)
    monkeypatch.setattr(compiled, "compiler", lambda: ("c++",))
    return asked


QUICK = [("linear", torch.float32), ("dare_ties", torch.float32)]
SLOW = [("linear", torch.bfloat16), ("ties", torch.float32), ("ties", torch.float16), ("dare_ties", torch.bfloat16)]


@needs_compiler
@pytest.mark.parametrize(("method", "dtype"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_one_kernel_gives_the_bytes_of_the_formula_for_every_size_weight_and_density(method, dtype):
    values = {} if method == "linear" else {"density": 0.6}
    compiler, plain = Compiler("always"), Compiler("never")
    tasks = [task(method, size, dtype, seed=i, **values) for i, size in enumerate(SIZES)]
    again = [task(method, size, dtype, seed=i, weight=0.37, **({**values, "density": 0.21} if values else {}))
             for i, size in enumerate(SIZES)]  # fmt: skip
    expected = [outcome(plain, some) for some in (tasks, again)]
    assert same(outcome(compiler, tasks), expected[0])
    assert [kernel is not None for kernel in compiler._kernels.values()] == [True]
    assert same(outcome(compiler, again), expected[1])
    assert len(compiler._kernels) == 1


#: Where a number decides, or how many sources there are, what a formula does.
DECIDED = [
    ("sce", {"sources": 2, "select_topk": 0.4}),
    ("sce", {"sources": 3, "select_topk": 0.4}),
    ("ram", {"sources": 1, "epsilon": 0.5}),
    ("ramplus_tl", {"sources": 1, "epsilon": 0.5}),
]


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("method", "values"), DECIDED, ids=[f"{name}-{given['sources']}" for name, given in DECIDED])
def test_what_a_number_or_the_sources_decide_is_compiled_to_the_same_bytes(method, values, dtype):
    compiler, some = Compiler("always"), task(method, dtype=dtype, **values)
    assert same(outcome(compiler, [some]), outcome(Compiler("never"), [task(method, dtype=dtype, **values)]))
    assert [type(kernel) for kernel in compiler._kernels.values()] == [Native]
    assert compiler._failures == 0


def numbers_of(info):
    """Every parameter that is a number, at the ends and in the middle of what is searched, the others as by default."""
    yield {}
    for spec in info.params:
        if not isinstance(spec, ChoiceParam):
            low, high = spec.search_low, spec.search_high
            yield from ({spec.name: value} for value in (low, type(low)((low + high) / 2), high))


def variants_of(name):
    """Every variant of a method that a number or the number of sources decides."""
    info = methods()[name].info
    counts = {info.min_sources, info.max_sources or 3, min(info.max_sources or 3, 2)}
    return {variant_of(task(name, 64, sources=count, **each)) for count in counts for each in numbers_of(info)}


def test_every_formula_can_be_written_in_cpp_whatever_number_is_chosen_and_however_many_sources_there_are():
    refused = set()
    for name in [name for name, method in methods().items() if method.info.elementwise]:
        for variant in variants_of(name):
            try:
                assert "kernel(" in source_of(variant)
            except Exception as error:
                refused.add((name, variant.flags, len(variant.dtypes), str(error)))
    assert refused == set()


@needs_compiler
def test_a_kernel_whose_bytes_differ_is_never_used(monkeypatch, caplog):
    real = compiled.compile_native

    class Off(Native):
        def run(self, tables, lanes=None, *, past=None):
            found = super().run(list(tables), lanes, past=past)
            for table in tables:
                table.tensors[0].add_(1e-7)
            return found

    monkeypatch.setattr(compiled, "compile_native", lambda source: Off(real(source)._function))
    compiler, one = Compiler("always"), task("linear")
    with caplog.at_level(logging.WARNING):
        assert same(outcome(compiler, [one]), outcome(Compiler("never"), [task("linear")]))
    assert "its bytes are not those of the formula" in caplog.text
    assert list(compiler._kernels.values()) == [None]


@needs_compiler
def test_a_formula_that_cannot_be_written_in_cpp_runs_as_it_stands(caplog):
    compiler, one = Compiler("always"), task("linear")
    one = replace(one, step=replace(one.step, formula=of_sines, flags={}))
    with caplog.at_level(logging.DEBUG, logger="merging.compiled"):
        compiler.run([one])
    assert torch.equal(one.out, torch.sin(one.inputs.tensors[0]))
    assert "of_sines runs as it stands: sin is not known" in caplog.text
    assert compiler._failures == 0


def of_sines(block):
    return torch.sin(block.others[0])


@needs_compiler
def test_formulas_that_cannot_be_traced_run_as_they_stand_and_others_are_still_compiled(caplog):
    compiler = Compiler("always")
    with caplog.at_level(logging.INFO, logger="merging.compiled"):
        for place in range(compiled.FAILURES + 1):
            one = task("linear", 4096, scale=1.0 + place % 2)
            one = replace(one, step=replace(one.step, formula=of_a_look(place), flags={}))
            compiler.run([one])
            assert torch.equal(one.out, one.inputs.tensors[0] * one.scale)
    assert caplog.text.count("of_a_look runs as it stands") == compiled.FAILURES + 1
    assert compiler._failures == 0
    outcome(compiler, [task("linear", 4096)])
    assert [type(kernel) for kernel in compiler._kernels.values()][-1] is Native


def test_what_torchs_compiler_cannot_trace_is_no_failure_of_it_either(caplog):
    compiler, one = Compiler("always"), task("linear", 4096)
    one = replace(one, step=replace(one.step, formula=of_a_look(0), flags={}))
    with caplog.at_level(logging.INFO, logger="merging.compiled"):
        compiler._try(variant_of(one), compiled.sample_of(variant_of(one), [one]), None)
    assert "of_a_look runs as it stands" in caplog.text
    assert compiler._kernels == {variant_of(one): None}
    assert compiler._failures == 0


def of_a_look(place):
    """A formula of its own per place, which looks at a number: while it is traced there is none."""

    def look(block):
        return block.others[0].clone() if float(block.others[1].sum()) > -1e9 - place else block.others[1].clone()

    look.__name__ = "of_a_look"
    return look


def test_a_compiler_that_is_named_in_no_understandable_way_is_asked_for_once(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "'c++")
    compiler = Compiler("always")
    with caplog.at_level(logging.WARNING):
        assert same(outcome(compiler, [task("linear")]), outcome(Compiler("never"), [task("linear")]))
    assert compiler._failures == compiled.FAILURES
    assert "merging goes on without a compiled kernel for combination" in caplog.text


def test_without_a_compiler_merging_goes_on_and_says_so_once(failing, caplog):
    compiler = Compiler("always")
    with caplog.at_level(logging.WARNING):
        for method in ("linear", "task_arithmetic", "linear"):
            assert same(outcome(compiler, [task(method)]), outcome(Compiler("never"), [task(method)]))
    assert len(failing) == 2
    assert caplog.text.count("merging goes on without a compiled kernel") == 1


def test_after_some_failures_no_more_are_tried(failing):
    compiler = Compiler("always")
    for number in range(compiled.FAILURES + 3):
        outcome(compiler, [task("linear", scale=1.0 if number % 2 else 2.0, dtype=dtype)
                           for dtype in (torch.float32, torch.float16, torch.bfloat16)])  # fmt: skip
    assert len(failing) == compiled.FAILURES


def test_by_itself_it_compiles_in_the_background_what_has_taken_long(failing, monkeypatch):
    compiler = Compiler()
    outcome(compiler, [task("linear")])
    compiler.wait()
    assert failing == []
    monkeypatch.setattr(compiled, "WORTH_SECONDS", 0.0)
    outcome(compiler, [task("linear")])
    compiler.wait()
    assert len(failing) == 1


def test_told_never_it_never_compiles(failing, monkeypatch):
    monkeypatch.setattr(compiled, "WORTH_SECONDS", 0.0)
    compiler = Compiler("never")
    outcome(compiler, [task("linear")])
    compiler.wait()
    assert failing == []


def test_small_tensors_inexact_methods_and_derivatives_are_never_compiled_for(failing):
    compiler = Compiler("always")
    outcome(compiler, [task("linear", compiled.SMALLEST - 1), task("linear", exact=False)])
    carrying = task("linear")
    numbers = tuple(torch.tensor(float(n), dtype=torch.float64, requires_grad=True) for n in carrying.step.numbers)
    outcome(compiler, [replace(carrying, step=replace(carrying.step, numbers=numbers))])
    assert failing == []


@needs_compiler
def test_threads_are_left_as_they_were():
    before = torch.get_num_threads()
    outcome(Compiler("always"), [task("linear")])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_what_is_built_in_place_leaves_its_sources_alone(method, dtype):
    some = task(method, 700, dtype)
    before = [tensor.clone() for tensor in some.inputs.tensors]
    by_tables = outcome(Compiler("never"), [some])[0]
    some.out.zero_()
    run(some)
    assert torch.equal(some.out.view(torch.uint8), by_tables)
    for tensor, own in zip(some.inputs.tensors, before, strict=True):
        assert torch.equal(tensor, own)
    weights = [float(number) for number in some.step.numbers]
    wide = [tensor.double() for tensor in before]
    base = wide.pop() if method == "task_arithmetic" else 0.0
    expected = sum(w * (tensor - base) for w, tensor in zip(weights, wide, strict=False))
    expected = expected + base if method == "task_arithmetic" else expected / sum(weights[:3])
    torch.testing.assert_close(some.out.double(), expected, rtol=1e-2, atol=1e-2)
