"""Compiled C++: the formulas' bytes for numbers of every kind, wherever results lie, and clear words without a compiler."""

from __future__ import annotations

import math
import os
import platform
import shutil
import stat
import sys
from dataclasses import replace

import pytest
import torch

import merging.native as native
from merging.batches import Task, slices, tables
from merging.blocks import unsound
from merging.compiled import FAILURES, Compiler
from merging.expressions import UnknownOperationError, source_of
from merging.native import CompilerError, NoCompilerError, compile_native
from merging.variants import function_of, variant_of
from tests.merging.test_compiled import needs_compiler, of_sines, outcome, same, task

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
@pytest.mark.parametrize("flags", ["-mno-avx512bf16", ""], ids=["any processor", "this processor"])
@pytest.mark.parametrize("odd", [None, 0.0, -0.0, 1e-45, -1e-40, 3.4e38, math.inf, -math.inf, math.nan], ids=str)
def test_results_are_rounded_to_nearest_and_even_beside_whatever_number(monkeypatch, odd, flags):
    # Every exponent, every way to be between two numbers of 16 bits; and one odd number in one tile of many.
    generator = torch.Generator().manual_seed(3)
    exponents = torch.randint(1 << 23, 0x7F000000, (20_017,), dtype=torch.int32, generator=generator)
    numbers = (exponents | torch.randint(0, 2, (20_017,), dtype=torch.int32, generator=generator) << 31).view(
        torch.float32
    )
    numbers[::7] = (numbers[::7].view(torch.int32) & ~0x7FFF | 0x8000).view(torch.float32)
    if odd is not None:
        numbers[9_003] = odd
    some = task("linear", numbers.numel(), torch.float32)
    some = replace(some, out=torch.empty(numbers.numel(), dtype=torch.bfloat16))
    for tensor, values in zip(some.inputs.tensors, (numbers, -0.0, -0.0), strict=True):
        tensor.copy_(torch.as_tensor(values))
    some = replace(some, step=replace(some.step, numbers=(1.0, 1.0, 1.0, 1.0)[: len(some.step.numbers)]))
    if flags and platform.machine() in ("x86_64", "AMD64"):
        monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, flags))
    notes = native._compiled.__wrapped__(source_of(variant_of(some)), native.compiler()).run(tables([some], 1 << 30))
    assert torch.equal(bits(some.out), bits(numbers.to(torch.bfloat16)))
    assert bool(unsound(notes)) == (not torch.isfinite(numbers.to(torch.bfloat16)).all())


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


def test_every_lane_joins_in_every_table_once_the_next_one_is_begun():
    begun = []
    shared = native._shared((begun.append(each) or each for each in range(3)), 2)
    assert [(each, len(begun)) for each in shared] == [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (2, 3)]
    assert list(native._shared(range(3), 1)) == [0, 1, 2]


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


@needs_compiler
@pytest.mark.parametrize(
    "formula",
    [
        lambda block: block.others[0].to(torch.float64).to(torch.float32),
        lambda block: block.others[0] << 3.0,
        lambda block: block.others[0].view(torch.int32).bitwise_left_shift(40).view(torch.float32),
        lambda block: (block.others[0].view(torch.int32) >> block.others[1].view(torch.int32)).view(torch.float32),
        lambda block: torch.where(block.others[0] > 1.0, 0.5, block.others[0]),
        lambda block: torch.maximum(block.others[0], block.others[1]),
        lambda block: block.others[0].clamp(min=-0.5),
        lambda block: block.others[0].to(torch.int16).to(torch.float32),
        lambda block: block.others[0].bool().to(torch.float32),
        lambda block: block.others[0].view(torch.int32).abs().view(torch.float32),
        lambda block: block.others[0].add(block.others[1], alpha=2.0),
        lambda block: block.others[0].mul_(2.0),
    ],
)
def test_whatever_is_not_surely_the_same_in_cpp_is_refused_or_the_same(formula):
    some = task("linear", 8192)
    variant = variant_of(some)._replace(formula=formula, flags=())
    some = replace(some, step=replace(some.step, formula=formula, flags={}))
    before = [tensor.clone() for tensor in some.inputs.tensors]
    try:
        kernel = compile_native(source_of(variant))
    except (UnknownOperationError, NotImplementedError, RuntimeError):
        return
    kernel.run(tables([some], 1 << 30))
    assert same(some.inputs.tensors, before)
    assert torch.equal(bits(some.out), bits(as_it_stands(some)))


@needs_compiler
@pytest.mark.parametrize(
    "formula",
    [
        lambda block: (block.index < 200000.5).to(torch.float32),
        lambda block: block.index * 0.5,
        lambda block: (block.index.clamp(5, 1 << 30) & 1).to(torch.float32),
        lambda block: torch.where(~(block.others[0] != block.others[0]), block.others[0], block.others[1]),
        lambda block: block.others[0].clamp_min(math.nan),
        lambda block: block.others[0] * math.inf + 1e300,
        lambda block: (block.others[0] * 1000.0).to(torch.int32).to(torch.float32),
        lambda block: (block.others[0] > 0.1).to(torch.int32) * 3 - block.index / 7,
        lambda block: block.others[0].sign() - block.others[1].neg().ceil() * block.others[0].abs(),
        lambda block: (block.index * -1640531527 + (1 << 30)).bitwise_not().view(torch.float32).clamp(-1e30, 1e30),
    ],
)
def test_numbers_truths_and_limits_come_out_as_torch_promotes_them(formula):
    some = task("linear", 1 << 18)
    some.inputs.tensors[0][1000::1000] = math.nan
    some = replace(some, step=replace(some.step, formula=formula, flags={}, indexed=True))
    (table,) = tables([some], 1 << 30)
    table = replace(table, starts=torch.tensor([[0], [(1 << 31) - 70000]], dtype=torch.int32))
    kernel = compile_native(source_of(variant_of(some)))
    function_of(variant_of(some))(table.tensors[0], table.numbers, table.words, table.starts, *table.tensors[1:])
    expected = some.out.clone()
    kernel.run([table])
    assert torch.equal(bits(some.out), bits(expected))


def by_fields(block):
    """A formula of four fields: spread over all, by row, by column, and whole numbers in 16 bits."""
    every, row, column, ranks = block.fields
    return block.others[0] * every + row * column + (ranks.to(torch.int32) * 3 >> 1).to(torch.float32)


@needs_compiler
def test_fields_may_be_spread_turned_and_narrow():
    rows, columns = 64, 128
    generator = torch.Generator().manual_seed(3)
    every = torch.randn(columns, rows, generator=generator).t()
    row, column = (torch.randn(size, 7, generator=generator)[:, :1] for size in (rows, columns))
    ranks = torch.randint(-30_000, 30_000, (rows, columns), generator=generator).to(torch.int16)
    for fields in (
        (every, row, column.t(), ranks),
        (every, row.expand(rows, columns), column.t().expand(rows, columns), ranks),
        (every[:, :1].expand(rows, columns), row[:1].expand(1, columns), column.t(), ranks[:1]),
    ):
        some = task("linear", rows * columns)
        inputs = replace(some.inputs, shape=(rows, columns))
        some = Task(replace(some.step, formula=by_fields, flags={}, fields=fields), inputs, some.out, 1.0)
        kernel = compile_native(source_of(variant_of(some)))
        kernel.run(tables([some], 1 << 30))
        wide = [field.expand(rows, columns) for field in fields]
        source = some.inputs.tensors[0].view(rows, columns)
        expected = source * wide[0] + wide[1] * wide[2] + (wide[3].to(torch.int32) * 3 >> 1).to(torch.float32)
        assert torch.equal(some.out.view(rows, columns), expected)


@needs_compiler
def test_numbers_in_16_bits_are_reckoned_with_only_once_they_are_widened():
    some = task("linear", 64 * 64)
    fields = (torch.zeros(64, 64, dtype=torch.int16),)
    step = replace(some.step, formula=lambda block: (block.fields[0] * 3).to(torch.float32), flags={}, fields=fields)
    with pytest.raises(UnknownOperationError, match="int16 is not reckoned with"):
        source_of(variant_of(Task(step, replace(some.inputs, shape=(64, 64)), some.out, 1.0)))


@needs_compiler
def test_a_table_that_is_not_finite_is_looked_through_once(monkeypatch):
    monkeypatch.setattr(native, "PIECE", 512)
    some = task("linear", 8 * 512)
    some.inputs.tensors[0][::512] = math.inf
    kernel = compile_native(source_of(variant_of(some)))
    assert len(kernel.run(slices([some], 8, 512, 1 << 30))) == 1


def test_without_a_compiler_the_way_out_is_told(monkeypatch, tmp_path):
    source = source_of(variant_of(task("linear", 64)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        CompilerError, match="there is no C\\+\\+ compiler 'c\\+\\+ or g\\+\\+ or clang\\+\\+'; install one"
    ):
        compile_native(source)
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(NoCompilerError, match="'no-such-compiler -O1'"):
        compile_native(source)
    # One look is enough: no further formula is traced for it.
    compiler, one = Compiler("always"), task("linear")
    assert same(
        outcome(compiler, [one, task("task_arithmetic")]), outcome(Compiler("never"), [one, task("task_arithmetic")])
    )
    assert compiler._failures == FAILURES
    assert list(compiler._kernels.values()) == [None]


@needs_compiler
def test_a_compiler_is_told_of_the_processor_as_far_as_it_understands(monkeypatch, tmp_path):
    picky = _script(
        tmp_path / "picky", f'case "$*" in *-march*|*-mcpu*) exit 1;; esac\nexec {shutil.which("c++")} "$@"\n'
    )
    monkeypatch.setenv("CXX", picky)
    assert native._flags((picky,)) == ()
    some = task("linear", 64)
    compile_native(source_of(variant_of(some))).run(tables([some], 64))
    assert same([some.out], [as_it_stands(some)])


def test_what_a_compiler_says_is_passed_on(monkeypatch, tmp_path):
    failing = _script(tmp_path / "failing", "echo no room on the device >&2\nexit 3\n")
    monkeypatch.setattr(native, "_flags", lambda command: ())
    monkeypatch.setenv("CXX", failing)
    with pytest.raises(CompilerError, match="failing said: no room on the device"):
        compile_native("")
    slow = _script(tmp_path / "slow", f"{sys.executable} -c 'import time; time.sleep(30)'\necho done\n")
    monkeypatch.setenv("CXX", slow)
    monkeypatch.setattr(native, "PATIENCE", 0.2)
    with pytest.raises(CompilerError, match="slow took more than"):
        compile_native("")


@needs_compiler
def test_a_compiler_may_be_named_with_arguments_or_in_a_folder_with_blanks(monkeypatch, tmp_path):
    folder = tmp_path / "my tools"
    folder.mkdir()
    path = _script(folder / "c plus plus", f'exec {shutil.which("c++")} "$@"\n')
    monkeypatch.setenv("CXX", path)
    assert native.compiler() == (path,)
    monkeypatch.setenv("CXX", "c++ -O2")
    assert native.compiler() == (shutil.which("c++"), "-O2")
    compile_native(source_of(variant_of(task("linear", 64))))


@needs_compiler
def test_a_formula_is_compiled_once_per_process(monkeypatch):
    source = source_of(variant_of(task("linear", 64)))
    assert compile_native(source) is compile_native(source)


@needs_compiler
def test_nothing_of_what_was_compiled_stays_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    native._compiled.cache_clear()
    kernel = compile_native(source_of(variant_of(task("linear", 64))))
    assert os.listdir(tmp_path) == []
    some = task("linear", 64)
    kernel.run(tables([some], 64))
    assert same([some.out], [as_it_stands(some)])


def _script(path, lines):
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
