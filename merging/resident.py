"""The resident model: candidates are written into it, in place, and nothing touches the disk."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedModel

from core.checkpoint import combine_digests
from core.noun import canonical_json
from core.recipe.output import output_config
from core.recipe.resolved import ResolvedRecipe
from merging.batches import Task
from merging.blocks import Note, unsound, witness
from merging.compiled import Compiler
from merging.compute import Loaded, Options, not_finite, prepare
from merging.memory import fits, free_bytes
from merging.plan import Leaf, TensorPlan
from merging.planner import Planner, Structure
from merging.skeleton import Skeleton, build_skeleton
from merging.slots import Kind, Slot, Slots
from merging.sources import Parents, safetensors_dtype, tensor_bytes
from merging.statistics import Statistics
from merging.vocabulary import Vocabularies

#: Structures (one per depth and dtype) kept for the next candidate that has them.
KEPT_SKELETONS = 8
#: Recipes' structures whose skeleton's name is remembered.
KEPT_KEYS = 256
#: Share of the memory free at the start that statistics of the parents may fill.
KEPT_SHARE = 0.2
#: Elements whose sources are gathered before they are merged: bounds what is held of parents that are not kept.
AT_ONCE = 1 << 26


@dataclass(frozen=True)
class Built:
    """A candidate, until the next one is built.

    Attributes:
        model: in eval mode, on the device, in the recipe's `save_dtype` or the resident's wider `forward_dtype`.
        parameters: what `tensors` are the data of.
        keys: gives `layer_keys`.
    """

    model: PreTrainedModel
    parameters: Mapping[str, torch.Tensor]
    keys: Callable[[], tuple[str, ...]]

    @cached_property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Every weight by name, in `save_dtype` (a tied head is not among them)."""
        return {name: parameter.data for name, parameter in self.parameters.items()}

    @cached_property
    def layer_keys(self) -> tuple[str, ...]:
        """One key per layer; layers with equal keys share their tensors."""
        return self.keys()


class Resident:
    """Turns recipes into models in memory.

    A tensor that is a parent's own is shared with the parent; every other tensor lies in a slot of the resident
    memory, which is written anew only where its content changes. Slots outlive their candidate: what the next one
    does not need may be overwritten by it.

    Args:
        parents: the open checkpoints.
        device: where the model lives; the parents' device by default.
        attn_implementation: transformers' name of the attention kernel.
        forward_dtype: the model computes in this dtype, over weights that were rounded to `save_dtype` all the same;
            None computes in `save_dtype`. Processors without half-precision arithmetic want float32.
        compiler: runs the formulas; by default it compiles what proves worth it.
        keep_bytes: how much of statistics of the parents may stay on the device; by default a share of what is free.
    """

    def __init__(
        self,
        parents: Parents,
        *,
        device: torch.device | str | None = None,
        attn_implementation: str = "sdpa",
        forward_dtype: torch.dtype | None = None,
        compiler: Compiler | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        self.parents = parents
        self.device = parents.device if device is None else torch.device(device)
        self._attention = attn_implementation
        self._forward_dtype = forward_dtype
        self._skeletons: OrderedDict[str, Skeleton] = OrderedDict()
        self._keys: dict[Structure, str] = {}
        self._planner = Planner(parents.headers)
        self._held: dict[bytes, Loaded] = {}
        self._slots, self._widened = Slots(self.device), Slots(self.device)
        self._shared: dict[Hashable, torch.nn.Parameter] = {}
        room = int(free_bytes(parents.device) * KEPT_SHARE) if keep_bytes is None else keep_bytes
        self._statistics = Statistics(room)
        self._compiler = compiler or Compiler()
        self._filled: Skeleton | None = None
        self.vocabularies = Vocabularies(parents)

    @property
    def options(self) -> Options:
        """What its tensors are computed from and with."""
        return Options(self.parents, True, self._statistics, self._compiler, self._held)

    def build(self, recipe: ResolvedRecipe, *, apart: bool = False) -> Built:
        """The candidate's model. It replaces the one built before, which must no longer be used.

        After a failure no model is held until the next build.

        Args:
            recipe: the candidate.
            apart: give every tensor a parameter of its own, also where tensors of one content share their memory.

        Raises:
            NonFiniteWeightsError, NonFiniteCheckpointError: a tensor holds NaN or infinity; names it.
            OutOfMemoryError: the device has no room for it.
            MissingCheckpointError, ParentsDoNotFitError, UnknownMethodError, CheckpointError: see `merging.plan`.
        """
        alignment = self.vocabularies.align(recipe)
        structure = self._planner.structure(recipe)
        plans = self._planner.plan(recipe, alignment, structure)
        skeleton = self._skeleton(recipe, structure, None if alignment is None else alignment.rows)
        # The last candidate lets go first, so that nobody can score a model that is half this one and half that one.
        if self._filled is not None:
            self._filled.empty()
        with fits("a candidate", self.device):
            parameters = self._parameters(plans)
            seen = self._widen(plans, parameters)
        if apart:
            seen = {name: torch.nn.Parameter(shared.data, requires_grad=False) for name, shared in seen.items()}
        skeleton.fill(seen)
        self._filled = skeleton
        return Built(skeleton.model, parameters, recipe.layer_keys)

    def _skeleton(self, recipe: ResolvedRecipe, structure: Structure | None, rows: int | None) -> Skeleton:
        key = None if structure is None else self._keys.get(structure)
        if key is None or key not in self._skeletons:
            config = output_config(recipe, self.parents.headers, rows)
            key = canonical_json(config)
            if structure is not None:
                if len(self._keys) >= KEPT_KEYS:
                    self._keys.clear()
                self._keys[structure] = key
        if key not in self._skeletons:
            dtype: torch.dtype = self._forward_dtype or getattr(torch, recipe.save_dtype)
            self._skeletons[key] = build_skeleton(config, dtype, self.device, self._attention)
        self._skeletons.move_to_end(key)
        while len(self._skeletons) > KEPT_SKELETONS:
            self._skeletons.popitem(last=False)
            self._keys = {known: name for known, name in self._keys.items() if name in self._skeletons}
        return self._skeletons[key]

    def _parameters(self, plans: Iterable[TensorPlan]) -> dict[str, torch.nn.Parameter]:
        """A parameter for every plan; plans of one content get one parameter."""
        plans = tuple(plans)
        leaves = {planned.content: leaf for planned in plans if (leaf := planned.shared)}
        self._shared = {content: self._share(content, leaf) for content, leaf in leaves.items()}
        wanted = {planned.content: planned for planned in plans if planned.content not in leaves}
        claimed = self._slots.claim(wanted)
        try:
            # In the order of the plans, so that of several failures the same one is told whatever was built before.
            self._write([(planned, claimed[content]) for content, planned in wanted.items() if content in claimed])
        except BaseException:
            self._slots.give_back(claimed.values())
            raise
        self._slots.settle(claimed)
        shared, held = self._shared, self._slots.held
        return {p.name: shared[p.content] if p.content in shared else held[p.content].parameter for p in plans}

    def _widen(
        self, plans: Iterable[TensorPlan], parameters: Mapping[str, torch.nn.Parameter]
    ) -> Mapping[str, torch.nn.Parameter]:
        """What the model computes with: the parameters, or exact copies of them in `forward_dtype`, kept by content."""
        wide = self._forward_dtype
        if wide is None or all(parameter.dtype == wide for parameter in parameters.values()):
            self._widened = Slots(self.device)
            return parameters
        contents = {planned.content: planned for planned in plans}
        claimed = self._widened.claim({key: Kind(each.name, each.shape, wide) for key, each in contents.items()})
        for content, slot in claimed.items():
            slot.parameter.data.copy_(parameters[contents[content].name].data)
        self._widened.settle(claimed)
        held = self._widened.held
        return {planned.name: held[planned.content].parameter for planned in plans}

    @torch.no_grad()
    def _write(self, plans: Sequence[tuple[TensorPlan, Slot]]) -> None:
        """Compute every planned tensor into its memory."""
        options, layouts = self.options, self._slots.layouts
        notes: list[Note] = []
        tasks: list[Task] = []
        waiting = 0
        for planned, slot in plans:
            task = prepare(planned, slot.memory, options, slot.seats)
            if task is None:
                notes.append(Note(witness(slot.memory), [slot.memory]))
                continue
            tasks.append(task)
            # What has a seat is held anyway.
            waiting += 0 if planned.site in slot.seats else slot.memory.numel()
            if waiting >= AT_ONCE:
                notes += self._compiler.run(tasks, layouts)
                tasks, waiting = [], 0
        notes += self._compiler.run(tasks, layouts)
        # Looked at only now, so that a GPU is not waited for after every tensor.
        wrong = {out.data_ptr() for out in unsound(notes)}
        if wrong:
            raise not_finite(next(planned for planned, slot in plans if slot.memory.data_ptr() in wrong))

    def _share(self, content: Hashable, leaf: Leaf) -> torch.nn.Parameter:
        kept = self._shared.get(content)
        if kept is not None:
            return kept
        return torch.nn.Parameter(self.parents.tensor(leaf.digest, leaf.name).to(self.device), requires_grad=False)


def weights_digest(built: Built) -> str:
    """The weights digest of a candidate, as `core.model.Model.weights_digest` defines it."""
    hashes: dict[int, str] = {}
    entries = []
    for name, tensor in built.tensors.items():
        place = tensor.data_ptr()
        if place not in hashes:
            hashes[place] = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
        entries.append((name, safetensors_dtype(tensor.dtype), tuple(tensor.shape), hashes[place]))
    return combine_digests(entries)
