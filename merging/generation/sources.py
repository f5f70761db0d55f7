"""What a generator learns from: models, candidates with their scores, and snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from core.checkpoint import combine_digests
from core.noun import digest_of
from core.recipe.resolved import ResolvedRecipe
from merging.compute import compute
from merging.generation.dataset import Source
from merging.plan import plan
from merging.sources import Parents, safetensors_dtype, tensor_bytes
from merging.vocabulary import Vocabularies


def model_source(parents: Parents, digest: str, score: float | None = None) -> Source:
    """A model, plain or adapted, that is open.

    Args:
        parents: the open checkpoints.
        digest: its weights digest.
        score: how well it did, where that is known.
    """
    return Source(digest, (digest,), partial(_kept, parents, digest), score)


def candidate_source(recipe: ResolvedRecipe, parents: Parents, score: float | None = None) -> Source:
    """A candidate of a search; only the tensors that are asked for are built.

    Args:
        recipe: the candidate.
        parents: its open checkpoints.
        score: how well it did.
    """
    return Source(recipe.digest(), recipe.model_digests(), builder(recipe, parents), score)


def snapshot_source(
    tensors: Mapping[str, Tensor], base: Source, lineage: tuple[str, ...] = (), score: float | None = None
) -> Source:
    """A snapshot of a fine-tune of some tensors; all others are the base's.

    Args:
        tensors: those that were tuned.
        base: what was tuned.
        lineage: weights digests of further models that went into it.
        score: how well it did.
    """
    entries = [
        (name, safetensors_dtype(tensor.dtype), tuple(tensor.shape), hashlib.sha256(tensor_bytes(tensor)).hexdigest())
        for name, tensor in tensors.items()
    ]
    digest = digest_of(["snapshot", base.digest, combine_digests(entries)])

    def tensor(name: str) -> Tensor:
        return tensors[name] if name in tensors else base.tensor(name)

    return Source(digest, (*base.lineage, *lineage), tensor, score)


def builder(recipe: ResolvedRecipe, parents: Parents) -> Callable[[str], Tensor]:
    """Gives any tensor of a candidate by name, in its storage dtype."""
    alignment = Vocabularies(parents).align(recipe)
    plans = {planned.name: planned for planned in plan(recipe, parents.headers, alignment)}
    return lambda name: compute(plans[name], parents)


def _kept(parents: Parents, digest: str, name: str) -> Tensor:
    return parents.tensor(digest, name)
