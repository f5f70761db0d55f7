"""The resident model: candidates are written into it, in place, and nothing touches the disk."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from core.checkpoint import combine_digests
from core.noun import canonical_json
from core.recipe.output import output_config
from core.recipe.resolved import ResolvedRecipe
from merging.compiled import Compiler
from merging.compute import check, write
from merging.memory import fits, free_bytes, lacks_memory
from merging.plan import TensorPlan, plan
from merging.skeleton import Skeleton, build_skeleton
from merging.sources import Parents, safetensors_dtype, tensor_bytes
from merging.statistics import Statistics
from merging.vocabulary import Vocabularies

#: Structures (one per depth and dtype) kept for the next candidate that has them.
KEPT_SKELETONS = 8
#: Share of the memory free at the start that statistics of the parents may fill.
KEPT_SHARE = 0.25


@dataclass(frozen=True)
class Built:
    """A candidate, until the next one is built.

    Attributes:
        model: in eval mode, on the device, in the recipe's `save_dtype` or the resident's wider `forward_dtype`.
        layer_keys: one key per layer; layers with equal keys share their tensors.
        tensors: every weight by name, in `save_dtype` (a tied head is not among them).
    """

    model: PreTrainedModel
    layer_keys: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]


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
        self._widened: dict[str, torch.nn.Parameter] = {}
        self._skeletons: OrderedDict[str, Skeleton] = OrderedDict()
        self._slots: dict[str, torch.nn.Parameter] = {}
        self._shared: dict[str, torch.nn.Parameter] = {}
        room = int(free_bytes(parents.device) * KEPT_SHARE) if keep_bytes is None else keep_bytes
        self._statistics = Statistics(room)
        self._compiler = compiler or Compiler()
        self._filled: Skeleton | None = None
        self.vocabularies = Vocabularies(parents)

    def build(self, recipe: ResolvedRecipe) -> Built:
        """The candidate's model. It replaces the one built before, which must no longer be used.

        After a failure no model is held until the next build.

        Raises:
            NonFiniteWeightsError, NonFiniteCheckpointError: a tensor holds NaN or infinity; names it.
            OutOfMemoryError: the device has no room for it.
            MissingCheckpointError, ParentsDoNotFitError, UnknownMethodError, CheckpointError: see `merging.plan`.
        """
        alignment = self.vocabularies.align(recipe)
        plans = plan(recipe, self.parents.headers, alignment)
        skeleton = self._skeleton(recipe, None if alignment is None else alignment.rows)
        # The last candidate lets go first, so that nobody can score a model that is half this one and half that one.
        if self._filled is not None:
            self._filled.empty()
        with fits("a candidate", self.device):
            parameters = self._parameters(plans)
            seen = self._widen(plans, parameters)
        skeleton.fill(seen)
        self._filled = skeleton
        return Built(skeleton.model, recipe.layer_keys(), {name: p.data for name, p in parameters.items()})

    def _skeleton(self, recipe: ResolvedRecipe, rows: int | None) -> Skeleton:
        config = output_config(recipe, self.parents.headers, rows)
        key = canonical_json(config)
        if key not in self._skeletons:
            dtype: torch.dtype = self._forward_dtype or getattr(torch, recipe.save_dtype)
            self._skeletons[key] = build_skeleton(config, dtype, self.device, self._attention)
        self._skeletons.move_to_end(key)
        while len(self._skeletons) > KEPT_SKELETONS:
            self._skeletons.popitem(last=False)
        return self._skeletons[key]

    def _parameters(self, plans: Iterable[TensorPlan]) -> dict[str, torch.nn.Parameter]:
        """A parameter for every plan; plans with one key get one parameter."""
        plans = tuple(plans)
        self._shared = {planned.key: self._share(planned) for planned in plans if planned.shared}
        wanted = {planned.key: planned for planned in plans if not planned.shared}
        free = [key for key in self._slots if key not in wanted]
        anew = {key: (planned, self._claim(planned, free)) for key, planned in wanted.items() if key not in self._slots}
        written = {key: self._write(planned, slot) for key, (planned, slot) in anew.items()}
        # Looked at only now, so that a GPU is not waited for after every tensor.
        for key, (planned, slot) in anew.items():
            check(planned, slot.data, written[key])
            self._slots[key] = slot
        return {p.name: self._shared[p.key] if p.shared else self._slots[p.key] for p in plans}

    def _widen(
        self, plans: Iterable[TensorPlan], parameters: Mapping[str, torch.nn.Parameter]
    ) -> Mapping[str, torch.nn.Parameter]:
        """What the model computes with: the parameters, or exact copies of them in `forward_dtype`, kept by key."""
        wide = self._forward_dtype
        keys = {planned.name: planned.key for planned in plans}
        if wide is None or all(parameter.dtype == wide for parameter in parameters.values()):
            self._widened = {}
            return parameters
        kept, self._widened = self._widened, {}
        for name, parameter in parameters.items():
            key = keys[name]
            if key not in self._widened:
                copied = kept.get(key)
                self._widened[key] = (
                    torch.nn.Parameter(parameter.data.to(wide), requires_grad=False) if copied is None else copied
                )
        return {name: self._widened[key] for name, key in keys.items()}

    def _write(self, planned: TensorPlan, slot: torch.nn.Parameter) -> list[torch.Tensor]:
        statistics, compiler = self._statistics, self._compiler
        return write(planned, self.parents, slot.data, keep=True, statistics=statistics, compiler=compiler)

    def _share(self, planned: TensorPlan) -> torch.nn.Parameter:
        leaf = planned.shared
        assert leaf is not None
        kept = self._shared.get(planned.key)
        if kept is not None:
            return kept
        return torch.nn.Parameter(self.parents.tensor(leaf.digest, leaf.name).to(self.device), requires_grad=False)

    def _claim(self, planned: TensorPlan, free: list[str]) -> torch.nn.Parameter:
        """A slot of the plan's shape and dtype that the candidate does not need; a new one where there is none."""
        for place, key in enumerate(free):
            slot = self._slots[key]
            if slot.shape == planned.shape and slot.dtype == planned.dtype:
                del free[place]
                # Forgotten before it is written, so that a failed build leaves no slot under a wrong key.
                return self._slots.pop(key)
        try:
            return self._allocate(planned)
        except (MemoryError, RuntimeError) as error:
            if not free or not lacks_memory(error):
                raise
            for key in free:
                del self._slots[key]
            free.clear()
            return self._allocate(planned)

    def _allocate(self, planned: TensorPlan) -> torch.nn.Parameter:
        memory = torch.empty(planned.shape, dtype=planned.dtype, device=self.device)
        return torch.nn.Parameter(memory, requires_grad=False)


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
