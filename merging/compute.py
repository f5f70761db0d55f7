"""From a plan to its tensor: float32 arithmetic block by block, one rounding at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from core.errors import NonFiniteWeightsError
from merging.activations import activations_of
from merging.batches import Task
from merging.blocks import Note, block_size, unsound, witness
from merging.compiled import Compiler
from merging.generation.opened import SAMPLING_BYTES, around
from merging.kernels import BLOCK, Inputs, Sibling
from merging.kernels import Pool as Siblings
from merging.methods import method_of
from merging.plan import Leaf, Pool, TensorPlan
from merging.seats import Seat, Steps
from merging.sources import Parents
from merging.statistics import Statistics

#: Tensors whose sources are remembered, by the site of their plan.
HELD = 1 << 14
#: Seats that are kept of one place in memory: as many as a planner remembers structures.
SEATS = 16
#: Runs every step block by block.
AS_IT_STANDS = Compiler("never")


@torch.no_grad()
def compute(
    planned: TensorPlan,
    parents: Parents,
    *,
    out: torch.Tensor | None = None,
    keep: bool = True,
    statistics: Statistics | None = None,
    compiler: Compiler | None = None,
) -> torch.Tensor:
    """The planned tensor, on the parents' device, in its save dtype.

    Args:
        planned: what to compute.
        parents: where its leaves lie.
        out: contiguous memory to write to, of the plan's shape and dtype; must not be a parent's tensor.
        keep: whether the parents may hold on to the tensors read for it.
        statistics: what is known of its sources already, and takes in what is found out about them.
        compiler: runs the formulas; they run as they stand by default.

    Raises:
        NonFiniteWeightsError: the result holds NaN or infinity; names the tensor.
        NonFiniteCheckpointError: a parent's tensor does.
    """
    statistics = Statistics(keep_bytes=0) if statistics is None else statistics
    compiler = compiler or AS_IT_STANDS
    if out is None:
        out = torch.empty(planned.shape, dtype=planned.dtype, device=parents.device)
    options = Options(parents, keep, statistics, compiler)
    task = prepare(planned, out, options)
    notes = [Note(witness(out), [out])] if task is None else compiler.run([task])
    if unsound(notes):
        raise not_finite(planned)
    return out


@dataclass(frozen=True, slots=True)
class Loaded:
    """The sources of a tensor.

    Attributes:
        tensors, content, peaks: as in a kernel's inputs.
    """

    tensors: tuple[torch.Tensor, ...]
    content: tuple[str, ...]
    peaks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """What tensors are computed from and with; see `compute`.

    Attributes:
        held: sources that stay where they are, by the site of their plan.
        steps: of the candidate at hand, whose plans are all there as long as this is.
    """

    parents: Parents
    keep: bool
    statistics: Statistics
    compiler: Compiler
    held: dict[bytes, Loaded] = field(default_factory=dict)
    steps: Steps = field(default_factory=dict)

    def load(self, source: Leaf | TensorPlan) -> torch.Tensor:
        """A tensor of a parent, or of a nested recipe."""
        if isinstance(source, Leaf):
            return self.parents.tensor(source.digest, source.name, keep=self.keep)
        return compute(source, self.parents, keep=self.keep, statistics=self.statistics, compiler=self.compiler)

    def sources(self, planned: TensorPlan) -> Loaded:
        """The sources of a plan."""
        held = None if planned.site is None else self.held.get(planned.site)
        if held is not None:
            return held
        leaves = [source for source in planned.sources if isinstance(source, Leaf)]
        tensors = tuple(self.load(source).reshape(-1) for source in planned.sources)
        peaks = [self.parents.peak(leaf.digest, leaf.name) for leaf in leaves]
        known = tuple(peak for peak in peaks if peak is not None)
        loaded = Loaded(
            tensors, tuple(source.key for source in planned.sources), known if len(known) == len(tensors) else ()
        )
        alone = len(leaves) == len(tensors)
        if planned.site is not None and alone and all(self.parents.keeps(leaf.digest, leaf.name) for leaf in leaves):
            if len(self.held) >= HELD:
                self.held.clear()
            self.held[planned.site] = loaded
        return loaded


def prepare(
    planned: TensorPlan, out: torch.Tensor, options: Options, seats: dict[bytes, Seat] | None = None
) -> Task | None:
    """What is left to be run for the planned tensor; None where `out` holds it already. Gradients must be off.

    Args:
        planned: what to compute.
        out: where to.
        options: from what and with what.
        seats: tasks with the same `out`, by the site of their plan; takes in those that will be the same again.
    """
    if planned.plain is not planned:
        out.copy_(_adjusted(planned, options.load(planned.plain), options.parents))
        return None
    if planned.copies:
        out.copy_(options.load(planned.sources[0]))
        return None
    if seats is not None and planned.site in seats:
        return seats[planned.site].task(planned, options.steps)
    inputs = inputs_of(planned, options, activations_of(planned, options.parents))
    method = method_of(planned.method)
    seat = Seat(inputs, out.view(-1), method)
    if seats is None or planned.site is None or planned.site not in options.held or inputs.activations is not None:
        # Nothing of it stays: it has no number under which anybody could keep its sources.
        return replace(seat.task(planned, options.steps), seat=None)
    if len(seats) >= SEATS:
        seats.clear()
    seats[planned.site] = seat
    return seat.task(planned, options.steps)


def not_finite(planned: TensorPlan) -> NonFiniteWeightsError:
    """The failure of a tensor that holds NaN or infinity."""
    return NonFiniteWeightsError(
        f"built weights must be finite, but tensor {planned.name!r} is not: take smaller weights or a wider dtype",
        where=planned.name,
    )


def _adjusted(planned: TensorPlan, plain: torch.Tensor, parents: Parents) -> torch.Tensor:
    """The float32 result with the factor on its part, the shift and the sample around it; `plain` is overwritten."""
    factor = part_factor(planned, plain.device)
    if factor is not None:
        plain.mul_(factor)
    if planned.shift != 0.0:
        plain.add_(planned.shift)
    return plain if planned.sampled is None else around(planned.sampled, plain, parents.generators)


def part_factor(planned: TensorPlan, device: torch.device) -> torch.Tensor | None:
    """The factor on the result's part and 1 elsewhere, in a shape that spreads over the tensor; None without a part."""
    part = planned.part
    if part is None:
        return None
    index = torch.arange(planned.shape[part.axis], device=device) % part.period < part.length
    factor = torch.where(index, part.scale, 1.0).to(torch.float32)
    return factor if part.axis == -1 else factor.view(-1, *(1,) * (len(planned.shape) - 1))


def inputs_of(planned: TensorPlan, options: Options, activations: torch.Tensor | None = None) -> Inputs:
    """What the plan's kernel looks at."""
    loaded = options.sources(planned)
    return Inputs(
        tensors=loaded.tensors,
        shape=planned.shape,
        name=planned.name,
        base=planned.base,
        params=planned.params,
        source_params=planned.source_params,
        keys=planned.keys,
        content=loaded.content,
        statistics=options.statistics,
        pools=tuple(_siblings(pool, options) for pool in planned.pools),
        activations=activations,
        peaks=loaded.peaks,
        inputs_first=planned.inputs_first,
    )


def _siblings(pool: Pool | None, options: Options) -> Siblings | None:
    if pool is None:
        return None

    def both(tensor: Leaf | TensorPlan, base: Leaf | TensorPlan) -> tuple[torch.Tensor, torch.Tensor]:
        return options.load(tensor).reshape(-1), options.load(base).reshape(-1)

    def members() -> Iterator[Sibling]:
        for tensor, base, elements in pool.members:
            yield Sibling((tensor.key, base.key), elements, partial(both, tensor, base))

    return Siblings(pool.key, members)


def peak_bytes(planned: TensorPlan, parents: Parents) -> int:
    """An upper bound on the memory `compute` takes for a plan, its leaves on the device and their making included."""
    making = (parents.making_bytes(leaf.digest, leaf.name) for leaf in _leaves(planned))
    return _peak_bytes(planned) + max(making, default=0)


def _leaves(planned: TensorPlan) -> Iterator[Leaf]:
    """Every tensor of a parent that a plan reads, one at a time."""
    pairs = (pair for pool in planned.pools if pool for *pair, _ in pool.members)
    for source in (*planned.sources, *(tensor for pair in pairs for tensor in pair)):
        if isinstance(source, Leaf):
            yield source
        else:
            yield from _leaves(source)


def _peak_bytes(planned: TensorPlan) -> int:
    elements = math.prod(planned.shape)
    if planned.plain is not planned:
        sampling = 0 if planned.sampled is None else elements * SAMPLING_BYTES
        return _peak_bytes(planned.plain) + elements * planned.dtype.itemsize + sampling
    own = sum(_source_bytes(source, elements) for source in planned.sources)
    if planned.copies:
        return own + elements * planned.dtype.itemsize
    # The blocks of every source with what a formula makes of them, and small tables.
    at_once = max(BLOCK, block_size(torch.device("cpu")) * torch.get_num_threads())
    blocks = 4 * min(elements, at_once) * (6 * len(planned.sources) + 8) + (1 << 20)
    method = method_of(planned.method)
    kernel = elements * (method.scratch + method.fields * len(planned.sources))
    return own + elements * planned.dtype.itemsize + kernel + blocks + _pooled(planned)


def _pooled(planned: TensorPlan) -> int:
    """What the largest pair of tensors takes that the plan's are trimmed among, while it is looked at."""
    members = [member for pool in planned.pools if pool for member in pool.members]
    scratch = method_of(planned.method).scratch
    return max((n * scratch + _source_bytes(one, n) + _source_bytes(base, n) for one, base, n in members), default=0)


def _source_bytes(source: Leaf | TensorPlan, elements: int) -> int:
    return elements * source.dtype.itemsize if isinstance(source, Leaf) else _peak_bytes(source)
