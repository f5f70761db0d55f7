"""The process's own generators of random numbers, as lm-eval sets them before it makes a task, and put back.

`lm_eval.simple_evaluate` seeds `random` with 0 and NumPy and PyTorch with 1234 each, once, and then makes all tasks it
was asked for, builds their prompts and reads their documents again to judge the answers. A task whose functions draw
from these generators (`random.shuffle` in `process_docs`) gets the harness's documents only where they stand as they
would in the harness. Nobody else's draws may depend on that, so they are put back afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from numpy.random import RandomState
from numpy.random import get_state as get_numpy_state
from numpy.random import set_state as set_numpy_state

#: What `simple_evaluate` seeds `random`, NumPy and PyTorch with.
PYTHON_SEED, NUMPY_SEED, TORCH_SEED = 0, 1234, 1234


@dataclass(frozen=True)
class Randomness:
    """Where the three generators stand; PyTorch's is that of the CPU, where documents are made.

    Attributes:
        python, numpy, torch: their states, as each library hands them out.
    """

    python: tuple[Any, ...]
    numpy: Any
    torch: torch.Tensor

    @classmethod
    def now(cls) -> Randomness:
        """As they stand."""
        return cls(random.getstate(), get_numpy_state(), torch.get_rng_state())

    def put(self) -> None:
        """Make them stand so."""
        random.setstate(self.python)
        set_numpy_state(self.numpy)
        torch.set_rng_state(self.torch)

    def same(self, other: Randomness) -> bool:
        """Whether the next draws would be equal."""
        mine, theirs = self.numpy, other.numpy
        return (
            self.python == other.python
            and bool((mine[1] == theirs[1]).all())
            and mine[2:] == theirs[2:]
            and torch.equal(self.torch, other.torch)
        )


@cache
def seeded() -> Randomness:
    """As they stand when `simple_evaluate` has just seeded them."""
    return Randomness(
        random.Random(PYTHON_SEED).getstate(),
        RandomState(NUMPY_SEED).get_state(),
        torch.Generator().manual_seed(TORCH_SEED).get_state(),
    )


@contextmanager
def as_in_the_harness(state: Randomness | None = None) -> Iterator[None]:
    """While this holds, the generators stand as in the harness; afterwards as before.

    Args:
        state: where they stand at the beginning; None is freshly seeded.
    """
    mine = Randomness.now()
    (state or seeded()).put()
    try:
        yield
    finally:
        mine.put()
