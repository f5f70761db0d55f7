"""Formulas compiled by the machine's C++ compiler, for processors: one pass over memory, on all cores.

What is compiled is the C++ of `merging.expressions`, for the processor at hand. It takes a second, and nothing of it
stays behind: the library is loaded and its file removed.
"""

from __future__ import annotations

import ctypes
import math
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch

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
#: Kernels that a process keeps.
KEPT = 256
#: Bytes of results from which on they are written past the caches, which they would not fit into.
PAST_CACHES = 1 << 25
#: Elements that a core takes of a table at once.
PIECE = 1 << 17


class CompilerError(Exception):
    """The compiler did not take what it was given, or what it made cannot be loaded."""


class NoCompilerError(CompilerError):
    """There is no compiler."""


@dataclass(frozen=True, slots=True, eq=False)
class Arguments:
    """A table as the function takes it.

    Attributes:
        table: what the addresses point into.
        all: in the function's order, but for where results go.
    """

    table: Table
    all: tuple[object, ...]


class Native:
    """A compiled formula.

    Args:
        function: what the library holds, see `expressions.source_of`.
    """

    def __init__(self, function: Callable[..., int]) -> None:
        self._function = function

    def run(self, tables: Iterable[Table], lanes: int | None = None, *, past: bool = False) -> list[Note]:
        """Write the results of all tables.

        Args:
            tables: of the variant it was compiled for; each is asked for when it is wanted.
            lanes: how many threads share them; as many as torch is set to by default.
            past: whether to write past the caches, for results that would not fit into them.

        Returns:
            What is known of results that are not finite; nothing if all are.
        """

        def work(arguments: Arguments) -> Table | None:
            return arguments.table if self._function(*arguments.all, past) else None

        lanes = lanes or torch.get_num_threads()
        told = spread(work, _shared(map(_arguments, tables), lanes), lanes)
        unsound = {id(table): table for table in told if table is not None}
        return [Note(math.nan, [task.out for task in table.tasks]) for table in unsound.values()]


def _shared(arguments: Iterable[Arguments], lanes: int) -> Iterator[Arguments]:
    """All of them for every lane, which take what is left of a table's rows.

    Others join in a table only once the next one is begun: so that is made while somebody is at work.
    """
    before: list[Arguments] = []
    for each in arguments:
        yield each
        yield from before
        before = [each] * (lanes - 1)
    yield from before


def compile_native(source: str) -> Native:
    """Compile C++ of `expressions.source_of` for this processor.

    Raises:
        CompilerError: there is no compiler, it failed, or what it made cannot be loaded.
        OSError: the source cannot be written.
    """
    return _compiled(source, compiler())


@lru_cache(KEPT)
def _compiled(source: str, command: tuple[str, ...]) -> Native:
    """The same, once per process."""
    with tempfile.TemporaryDirectory(prefix="huarizo-kernel-") as folder:
        file, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        file.write_text(source)
        _run([*command, *_flags(command), *FLAGS, str(file), "-o", str(library)])
        try:
            function = ctypes.CDLL(str(library)).kernel
        except OSError as error:
            raise CompilerError(f"{error}; name a folder that programs may run from in TMPDIR") from error
    function.restype = ctypes.c_int64
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [*[pointer] * 5, number, pointer, *[number] * 4]
    return Native(function)


def _run(command: Sequence[str]) -> None:
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    # A compiler runs programs of its own, which are to end with it.
    with subprocess.Popen(command, start_new_session=True, **kept) as process:  # type: ignore[call-overload]
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise CompilerError(f"{command[0]} took more than {PATIENCE} s") from error
    if process.returncode:
        raise CompilerError(f"{command[0]} said: {said.strip()[:2000] or process.returncode}")


def compiler() -> tuple[str, ...]:
    """The compiler's path, and what it is always to be given.

    Raises:
        NoCompilerError: there is none.
    """
    named = os.environ.get(NAMED, "")
    for name in (named,) if named else KNOWN:
        # A path with blanks, or a command with arguments.
        for words in ([name], shlex.split(name)):
            if words and (found := shutil.which(words[0])):
                return (found, *words[1:])
    raise NoCompilerError(
        f"there is no C++ compiler {named or ' or '.join(KNOWN)!r}; install one, or name it in {NAMED}"
    )


@cache
def _flags(command: tuple[str, ...]) -> tuple[str, ...]:
    """The first flags for the processor that the compiler takes."""
    with tempfile.TemporaryDirectory(prefix="huarizo-kernel-") as folder:
        file = Path(folder) / "empty.cpp"
        file.write_text("int nothing;\n")
        for flags in PROCESSOR:
            with suppress(CompilerError):
                _run([*command, *flags, *FLAGS, str(file), "-o", str(file.with_suffix(".so"))])
                return flags
    raise CompilerError(f"{command[0]} cannot make a library")


def _arguments(table: Table) -> Arguments:
    tensors = table.tensors
    addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    strides = (ctypes.c_int64 * len(tensors))(*(0 if t.shape[0] == 1 else t.stride(0) for t in tensors))
    numbers, words, starts = table.numbers, table.words, table.starts
    start_stride = 0 if starts.shape[0] == 1 else starts.stride(0)
    pointers = (numbers.data_ptr(), words.data_ptr(), starts.data_ptr())
    some, taken = max(1, PIECE // max(1, table.columns)), ctypes.c_int64(0)
    shape = (some, tensors[0].shape[0], table.columns)
    return Arguments(table, (addresses, strides, *pointers, start_stride, ctypes.byref(taken), *shape))
