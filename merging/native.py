"""Formulas compiled by the machine's C++ compiler, for processors: one pass over memory, on all cores.

What is compiled is the C++ of `merging.expressions`, for the processor at hand. It takes a second, and nothing of it
stays behind: the library is loaded and its file removed.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from merging.batches import Table
from merging.blocks import Note
from merging.lanes import spread

#: Environment variable that names the compiler, and what is looked for without it.
NAMED, KNOWN = "CXX", ("c++", "g++", "clang++")
#: Each operation is rounded by itself, whole numbers wrap around; neither traps nor errno are looked at.
FLAGS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC"),
    *("-ffp-contract=off", "-fwrapv", "-fno-math-errno", "-fno-trapping-math"),
)
#: Flags for the processor at hand, the best first; a compiler need not know them.
PROCESSOR = (("-march=native",), ("-mcpu=native",), ())
#: Seconds that a compiler may take.
PATIENCE = 120
#: Bytes of results from which on they are written past the caches, which they would not fit into.
PAST_CACHES = 1 << 25
#: Elements of the pieces that cores share.
PIECE = 1 << 20


class CompilerError(Exception):
    """There is no compiler, or it did not take what it was given."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a table."""

    arguments: Arguments
    top: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Arguments:
    """A table as the function takes it.

    Attributes:
        table: what the addresses point into.
        before: (tensors, strides, numbers, words, starts, start stride), in the function's order.
        columns: of the result.
    """

    table: Table
    before: tuple[object, ...]
    columns: int


class Native:
    """A compiled formula.

    Args:
        function: what the library holds, see `expressions.source_of`.
    """

    def __init__(self, function: Callable[..., int]) -> None:
        self._function = function

    def run(self, tables: Iterable[Table], lanes: int | None = None, *, past: bool | None = None) -> list[Note]:
        """Write the results of all tables.

        Args:
            tables: of the variant it was compiled for.
            lanes: how many threads share them; as many as torch is set to by default.
            past: whether to write past the caches; by default where they would not hold the results.

        Returns:
            What is known of results that are not finite; nothing if all are.
        """
        found = [_arguments(table) for table in tables]
        if past is None:
            past = sum(each.table.tensors[0].nbytes for each in found) >= PAST_CACHES

        def work(piece: Piece) -> Table | None:
            arguments = piece.arguments
            unsound = self._function(*arguments.before, piece.top, piece.end, arguments.columns, past)
            return arguments.table if unsound else None

        unsound = spread(work, (piece for each in found for piece in _pieces(each)), lanes)
        return [Note(math.nan, [task.out for task in table.tasks]) for table in unsound if table is not None]


def compile_native(source: str) -> Native:
    """Compile C++ of `expressions.source_of` for this processor.

    Raises:
        CompilerError: there is no compiler, or it failed.
        OSError: the library cannot be written or loaded.
    """
    with tempfile.TemporaryDirectory(prefix="huarizo-kernel-") as folder:
        library = Path(folder) / "kernel.so"
        _compile(source, library)
        function = ctypes.CDLL(str(library)).kernel
    function.restype = ctypes.c_int64
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer] * 5 + [number] * 5
    return Native(function)


def _compile(source: str, library: Path) -> None:
    compiler = _compiler()
    file = library.with_suffix(".cpp")
    file.write_text(source)
    command = [compiler, *_flags(compiler), *FLAGS, str(file), "-o", str(library)]
    _run(command)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompilerError(f"{command[0]} took more than {PATIENCE} s") from error
    if done.returncode:
        raise CompilerError(f"{command[0]} said: {done.stderr.strip()[:2000] or done.returncode}")


def _compiler() -> str:
    """The path of the compiler.

    Raises:
        CompilerError: there is none.
    """
    named = os.environ.get(NAMED)
    for name in (named,) if named else KNOWN:
        found = shutil.which(name)
        if found is not None:
            return found
    raise CompilerError(f"there is no C++ compiler {named or ' or '.join(KNOWN)!r}; install one, or name it in {NAMED}")


@cache
def _flags(compiler: str) -> tuple[str, ...]:
    """The first flags for the processor that the compiler takes."""
    with tempfile.TemporaryDirectory(prefix="huarizo-kernel-") as folder:
        file = Path(folder) / "empty.cpp"
        file.write_text("int nothing;\n")
        for flags in PROCESSOR:
            try:
                _run([compiler, *flags, *FLAGS, str(file), "-o", str(file.with_suffix(".so"))])
            except CompilerError:
                continue
            return flags
    raise CompilerError(f"{compiler} cannot make a library")


def _arguments(table: Table) -> Arguments:
    tensors = table.tensors
    addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    strides = (ctypes.c_int64 * len(tensors))(*(0 if t.shape[0] == 1 else t.stride(0) for t in tensors))
    numbers, words, starts = table.numbers, table.words, table.starts
    start_stride = 0 if starts.shape[0] == 1 else starts.stride(0)
    pointers = (numbers.data_ptr(), words.data_ptr(), starts.data_ptr())
    return Arguments(table, (addresses, strides, *pointers, start_stride), table.columns)


def _pieces(arguments: Arguments) -> Iterator[Piece]:
    rows = arguments.table.tensors[0].shape[0]
    height = max(1, PIECE // max(1, arguments.columns))
    for top in range(0, rows, height):
        yield Piece(arguments, top, min(top + height, rows))
