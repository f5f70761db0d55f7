"""Candidates whose coefficients have derivatives: one backward pass gives the slope of a loss in every one of them.

The candidate is the resident's usual one. When the loss is differentiated, the gradient of each weight is taken as soon
as it arrives, contracted block by block with the derivative of the method's own formula by its smooth parameters, and
freed; so never more than one weight's gradient is held besides what the backward pass itself needs. Rounding to the
save dtype counts as the identity, masks as fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.params import Scalar
from core.recipe.output import OutputTensor, walk
from core.recipe.resolved import ResolvedRecipe
from merging.activations import activations_of
from merging.blocks import Cutter, block_size
from merging.compute import Options, inputs_of, part_factor
from merging.kernels import Inputs, Step
from merging.methods import method_of
from merging.plan import TensorPlan, plan
from merging.resident import Resident

#: The factor on a tensor's result, which every method has.
SCALE = "scale"


class Coefficient(NamedTuple):
    """One value of a candidate: of one parameter, in one output tensor, of one source.

    Attributes:
        tensor: the output tensor's name.
        param: the parameter's name.
        source: position among the recipe's sources; None where the parameter holds for the whole tensor.
    """

    tensor: str
    param: str
    source: int | None


class Followed:
    """A candidate under differentiation. Use it as a context manager; other candidates are built after it is left.

    Backward passes through `model` add to the slopes, so several batches may be differentiated one after another. A
    parameter that several tensors share by value (a layer group, say) has the sum of their slopes.

    Args:
        resident: builds the candidate.
        recipe: the candidate.
        wanted: which of its coefficients are followed; by default every smooth parameter of its methods, and not the
            scales. Tensors without any get no gradient at all.
        dtype: what blocks are computed in; sums over blocks are float64 in any case.

    Raises:
        As `Resident.build`.
    """

    def __init__(
        self,
        resident: Resident,
        recipe: ResolvedRecipe,
        *,
        wanted: Callable[[Coefficient], bool] = lambda coefficient: coefficient.param != SCALE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._options, self._dtype = resident.options, dtype
        self._slopes: dict[Coefficient, float] = {}
        self.model: PreTrainedModel = resident.build(recipe, apart=True).model
        self._held: list[tuple[torch.nn.Parameter, torch.utils.hooks.RemovableHandle]] = []
        parameters = dict(self.model.named_parameters())
        plans = plan(recipe, resident.parents.headers, resident.vocabularies.align(recipe))
        for output, planned in zip(walk(recipe), plans, strict=True):
            found = tuple(c for c in coefficients(output, planned) if wanted(c))
            if not found:
                continue
            self._slopes.update(dict.fromkeys(found, 0.0))
            parameter = parameters[output.name]
            parameter.requires_grad_(True)
            hook = parameter.register_post_accumulate_grad_hook(self._taker(planned, output, found))
            self._held.append((parameter, hook))

    @property
    def slopes(self) -> Mapping[Coefficient, float]:
        """The derivative of everything differentiated so far by every coefficient followed."""
        return dict(self._slopes)

    def reset(self) -> None:
        """Begin anew from zero."""
        self._slopes = dict.fromkeys(self._slopes, 0.0)

    def __enter__(self) -> Followed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for parameter, hook in self._held:
            hook.remove()
            parameter.requires_grad_(False)
            parameter.grad = None
        self._held = []

    def _taker(
        self, planned: TensorPlan, output: OutputTensor, wanted: tuple[Coefficient, ...]
    ) -> Callable[[Tensor], None]:
        def take(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient, parameter.grad = parameter.grad, None
            found = contract(planned, gradient, self._options, names_of(output, wanted), self._dtype)
            for coefficient, slope in zip(wanted, found, strict=True):
                self._slopes[coefficient] += slope

        return take


class Name(NamedTuple):
    """A parameter of a tensor plan; `position` among the plan's sources, None where it holds for the whole tensor."""

    param: str
    position: int | None


def coefficients(output: OutputTensor, planned: TensorPlan) -> Iterator[Coefficient]:
    """The smooth coefficients of one output tensor; those of recipes within a recipe are not among them."""
    if planned.method != output.entry.method:
        return
    info = method_of(planned.method).info
    scopes = {spec.name: spec.scope for spec in info.params}
    for name in info.smooth:
        if scopes[name] != "source":
            yield Coefficient(output.name, name, None)
            continue
        for position, (source, _) in enumerate(output.entry.sources):
            if position != planned.base:
                yield Coefficient(output.name, name, source)
    yield Coefficient(output.name, SCALE, None)


def names_of(output: OutputTensor, wanted: tuple[Coefficient, ...]) -> tuple[Name, ...]:
    """The coefficients as parameters of the tensor's plan."""
    positions = {source: position for position, (source, _) in enumerate(output.entry.sources)}
    return tuple(Name(c.param, None if c.source is None else positions[c.source]) for c in wanted)


def contract(
    planned: TensorPlan, gradient: Tensor, options: Options, names: tuple[Name, ...], dtype: torch.dtype
) -> list[float]:
    """The slope of a loss in some parameters of one tensor, from the loss's gradient by the tensor.

    Args:
        planned: the tensor.
        gradient: of its shape, by the weights as they are in the end.
        options: what tensors are computed from.
        names: the parameters; smooth ones, and `SCALE`.
        dtype: what blocks are computed in.
    """
    factor = part_factor(planned, gradient.device)
    flat = (gradient if factor is None else gradient * factor).reshape(-1)
    leaves = {name: _leaf(planned, name) for name in names if name.param != SCALE}
    with torch.enable_grad():
        inputs = _with_leaves(planned, options, leaves)
        step = method_of(planned.method).kernel(inputs)
        carried, step = _cut_off(step)
    slopes, along = _over_blocks(step, inputs, flat.to(inputs.device), [cut for _, cut in carried], dtype)
    used = [(number, slope) for (number, _), slope in zip(carried, slopes, strict=True) if number.requires_grad]
    by_leaf = (
        torch.autograd.grad(
            [number for number, _ in used],
            list(leaves.values()),
            [slope.to(number) * planned.scale for number, slope in used],
            allow_unused=True,
        )
        if used and leaves
        else [None] * len(leaves)
    )
    found = {name: 0.0 if slope is None else float(slope) for name, slope in zip(leaves, by_leaf, strict=True)}
    return [along if name.param == SCALE else found[name] for name in names]


def _leaf(planned: TensorPlan, name: Name) -> Tensor:
    values = planned.params if name.position is None else planned.source_params[name.position]
    return torch.tensor(float(values[name.param]), dtype=torch.float64, requires_grad=True)


def _with_leaves(planned: TensorPlan, options: Options, leaves: Mapping[Name, Tensor]) -> Inputs:
    """The inputs of the plan's kernel, with leaves in the place of some values."""
    plain = planned.plain
    with torch.no_grad():
        inputs = inputs_of(plain, options, activations_of(plain, options.parents))
    params: dict[str, Scalar | Tensor] = {**plain.params}
    own: list[dict[str, Scalar | Tensor]] = [{**values} for values in plain.source_params]
    for name, leaf in leaves.items():
        (params if name.position is None else own[name.position])[name.param] = leaf
    return replace(inputs, params=params, source_params=tuple(own))


def _cut_off(step: Step) -> tuple[list[tuple[Tensor, Tensor]], Step]:
    """What of a step carries derivatives, each with a leaf of its own, and the step with those leaves in its place.

    So the part of the graph from parameters to numbers is gone through once, not once for every block.
    """
    carried: list[tuple[Tensor, Tensor]] = []

    def cut(value: Tensor) -> Tensor:
        leaf = value.detach().clone().requires_grad_(True)
        carried.append((value, leaf))
        return leaf

    numbers = tuple(cut(n) if isinstance(n, Tensor) and n.requires_grad else n for n in step.numbers)
    fields = tuple(cut(f) if f.requires_grad else f for f in step.fields)
    return carried, replace(step, numbers=numbers, fields=fields)


def _over_blocks(
    step: Step, inputs: Inputs, gradient: Tensor, leaves: list[Tensor], dtype: torch.dtype
) -> tuple[list[Tensor], float]:
    """The slope in every leaf, float64, and the inner product of the gradient and the result before its scale."""
    slopes = [torch.zeros_like(leaf, dtype=torch.float64) for leaf in leaves]
    along = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for start in range(0, inputs.elements, block_size(inputs.device)):
        stop = min(start + block_size(inputs.device), inputs.elements)
        part = gradient[start:stop].to(dtype)
        with torch.enable_grad():
            # Cut anew for every block, for a graph is gone once it was gone through.
            result = step.formula(Cutter(step, inputs, dtype).block(start, stop), **step.flags)
        along += torch.dot(result.detach().double(), part.double())
        if not result.requires_grad:
            continue
        for slope, found in zip(slopes, torch.autograd.grad(result, leaves, part, allow_unused=True), strict=True):
            if found is not None:
                slope += found.to(slope)
    return slopes, float(along)
