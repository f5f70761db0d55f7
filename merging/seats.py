"""What a tensor's task is from candidate to candidate: sources, result and kernel stay, only values change."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count

from torch import Tensor

from merging.batches import Task, whole
from merging.kernels import Inputs, Method, Step
from merging.plan import TensorPlan

#: Steps of one candidate with their values, by what they are made from.
Steps = dict[Hashable, tuple[Step, object]]

_numbers = count()


class Seat:
    """Sources that stay where they are, and a place in memory that they are merged into.

    Args:
        inputs: what the kernel looks at, with the values of any candidate.
        out: flat, the place.
        method: what is done with them.
    """

    __slots__ = ("_inputs", "_method", "_out", "number")

    def __init__(self, inputs: Inputs, out: Tensor, method: Method) -> None:
        assert whole((out, *inputs.tensors))
        self._inputs, self._out, self._method = inputs, out, method
        #: No other seat of this process has it, nor will have.
        self.number = next(_numbers)

    def task(self, planned: TensorPlan, steps: Steps) -> Task:
        """What is left to be run for a plan of the same site.

        Args:
            planned: with the values of a candidate.
            steps: of this candidate so far; takes in those that further tensors may share.
        """
        method, inputs = self._method, self._inputs
        if not method.by_values:
            inputs = inputs.revalued(planned.params, planned.source_params)
            step = method.kernel(inputs)
        else:
            # Plans of one group hold the very same values, and nothing but the kernel looks at them.
            values = planned.params, planned.source_params
            key = method.kernel, *map(id, values), inputs.base
            if key not in steps:
                # The values are kept beside it, so that no others can take their place in memory.
                steps[key] = method.kernel(inputs.revalued(*values)), values
            step, _ = steps[key]
        return Task(step, inputs, self._out, planned.scale, method.info.elementwise, self.number)
