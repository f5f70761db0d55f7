"""Compiled C++: the formulas' bytes for numbers of every kind, wherever results lie, and clear words without a compiler."""

from __future__ import annotations

import math
import os
import shutil
import stat
import sys
from dataclasses import replace

import pytest
import torch

import merging.native as native
from merging.batches import slices, tables
from merging.blocks import unsound
from merging.compiled import Compiler
from merging.expressions import UnknownOperationError, source_of
from merging.native import CompilerError, compile_native
from merging.variants import function_of, variant_of
from tests.merging.test_compiled import needs_compiler, of_sines, same, task

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Zeros of both signs, the smallest and the largest numbers, those halfway between two of 16 bits, and odd ones.
SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 1e-39, 1.17549435e-38, -1.0, 1.0, 1.00390625, 1.01171875, -1.00390625, 65504.0)


def as_it_stands(some):
    """The result of the formula's own operations."""
    out = torch.empty_like(some.out)
    for table in tables([replace(some, out=out)], 1 << 30):
        function_of(variant_of(some))(table.tensors[0], table.numbers, table.words, table.starts, *table.tensors[1:])
    return out


def special(method, dtype, **values):
    """A task whose sources hold every pair of special numbers, and NaN and infinity beside."""
    numbers = torch.tensor((*SPECIAL, 3e38, -3e38, math.inf, -math.inf, math.nan)).to(dtype)
    some = task(method, numbers.numel() ** 2, dtype, **values)
    crossed = (numbers.repeat(numbers.numel()), numbers.repeat_interleave(numbers.numel()))
    for place, tensor in enumerate(some.inputs.tensors):
        tensor.copy_(crossed[place % 2])
    return some


def bits(tensor):
    """As whole numbers, every NaN the same one."""
    whole = torch.where(torch.isnan(tensor), torch.full_like(tensor, math.nan), tensor)
    return whole.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("method", "values"),
    [("linear", {}), ("task_arithmetic", {"lambda": 0.7}), ("dare_ties", {"density": 0.6}), ("ties", {"density": 0.5})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_special_numbers_come_out_as_from_the_formula(method, values, dtype):
    some = special(method, dtype, **values)
    kernel = compile_native(source_of(variant_of(some)))
    notes = kernel.run(tables([some], 1 << 30))
    expected = as_it_stands(some)
    assert torch.equal(bits(some.out), bits(expected))
    # A result with NaN or infinity is told, and named.
    assert not torch.isfinite(expected).all()
    assert [id(each) for each in unsound(notes)] == [id(some.out)]


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_past_the_caches_lie_wherever_they_belong_and_nowhere_else(dtype):
    kernel = compile_native(source_of(variant_of(task("linear", dtype=dtype))))
    for size in (1, 2, 31, 32, 33, 63, 64, 65, 1000, 5000):
        for offset in range(0, 40, 3):
            some = task("linear", size, dtype)
            room = torch.full((size + 80,), 7.0, dtype=dtype)
            some = replace(some, out=room[offset : offset + size])
            assert kernel.run(tables([some], 1 << 30), past=True) == []
            assert torch.equal(some.out, as_it_stands(some))
            assert (room[:offset] == 7.0).all()
            assert (room[offset + size :] == 7.0).all()


@needs_compiler
def test_pieces_of_rows_have_their_own_numbers_and_indices_whoever_computes_them(monkeypatch):
    some = task("dare_ties", 50 * 40, density=0.4)
    kernel, expected = compile_native(source_of(variant_of(some))), as_it_stands(some)
    for piece in (1, 40, 120, 10**6):
        monkeypatch.setattr(native, "PIECE", piece)
        for lanes in (1, 3):
            some.out.zero_()
            kernel.run(slices([some], 50, 40, 700), lanes)
            assert torch.equal(some.out, expected)


@needs_compiler
def test_only_results_that_are_not_finite_are_told():
    sound, broken = task("linear", 4096, seed=1), task("linear", 4096, seed=2)
    broken.inputs.tensors[0][4000] = math.inf
    compiler = Compiler("always")
    notes = compiler.run([sound, broken])
    assert [id(out) for out in unsound(notes)] == [id(broken.out)]


def test_what_a_formula_may_not_hold_is_named():
    some = task("linear", 64)
    variant = variant_of(some)._replace(formula=of_sines, flags=())
    with pytest.raises(UnknownOperationError, match="sin is not known"):
        source_of(variant)
    with pytest.raises(UnknownOperationError, match="float64 is not known"):
        source_of(variant_of(some)._replace(out=torch.float64))
    halves = variant_of(some)._replace(formula=of_halves, flags=())
    with pytest.raises(UnknownOperationError, match="a division of whole numbers"):
        source_of(halves)


def of_halves(block):
    return block.others[0].view(torch.int32).div(2)


def test_without_a_compiler_the_way_out_is_told(monkeypatch, tmp_path):
    source = source_of(variant_of(task("linear", 64)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        CompilerError, match="there is no C\\+\\+ compiler 'c\\+\\+ or g\\+\\+ or clang\\+\\+'; install one"
    ):
        compile_native(source)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilerError, match="'no-such-compiler'"):
        compile_native(source)


@needs_compiler
def test_a_compiler_is_told_of_the_processor_as_far_as_it_understands(monkeypatch, tmp_path):
    picky = _script(
        tmp_path / "picky", f'case "$*" in *-march*|*-mcpu*) exit 1;; esac\nexec {shutil.which("c++")} "$@"\n'
    )
    monkeypatch.setenv("CXX", picky)
    assert native._flags(picky) == ()
    some = task("linear", 64)
    compile_native(source_of(variant_of(some))).run(tables([some], 64))
    assert same([some.out], [as_it_stands(some)])


def test_what_a_compiler_says_is_passed_on(monkeypatch, tmp_path):
    failing = _script(tmp_path / "failing", "echo no room on the device >&2\nexit 3\n")
    monkeypatch.setattr(native, "_flags", lambda compiler: ())
    monkeypatch.setenv("CXX", failing)
    with pytest.raises(CompilerError, match="failing said: no room on the device"):
        compile_native("")
    slow = _script(tmp_path / "slow", f"exec {sys.executable} -c 'import time; time.sleep(30)'\n")
    monkeypatch.setenv("CXX", slow)
    monkeypatch.setattr(native, "PATIENCE", 0.2)
    with pytest.raises(CompilerError, match="slow took more than"):
        compile_native("")


@needs_compiler
def test_nothing_of_what_was_compiled_stays_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kernel = compile_native(source_of(variant_of(task("linear", 64))))
    assert os.listdir(tmp_path) == []
    some = task("linear", 64)
    kernel.run(tables([some], 64))
    assert same([some.out], [as_it_stands(some)])


def _script(path, lines):
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
