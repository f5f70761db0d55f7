"""What a tensor's task is from candidate to candidate: sources, result and kernel stay, only values change."""

from __future__ import annotations

from itertools import count

from torch import Tensor

from merging.batches import Task
from merging.kernels import Inputs, Kernel
from merging.plan import TensorPlan

_numbers = count()


class Seat:
    """Sources that stay where they are, and a place in memory that they are merged into.

    Args:
        inputs: what the kernel looks at, with the values of any candidate.
        out: flat, the place.
        kernel: the method's.
        exact: as in `Task`.
    """

    __slots__ = ("_exact", "_inputs", "_kernel", "_out", "number")

    def __init__(self, inputs: Inputs, out: Tensor, kernel: Kernel, *, exact: bool) -> None:
        self._inputs, self._out, self._kernel, self._exact = inputs, out, kernel, exact
        #: No other seat of this process has it, nor will have.
        self.number = next(_numbers)

    def task(self, planned: TensorPlan) -> Task:
        """What is left to be run for a plan of the same site."""
        inputs = self._inputs.revalued(planned.params, planned.source_params)
        return Task(self._kernel(inputs), inputs, self._out, planned.scale, self._exact, self.number)
