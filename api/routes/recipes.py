"""Recipes: what each tensor of a candidate would get."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from api.access import Reading
from api.answers import problems
from api.schemas.recipes import ResolveIn, ResolveOut, SourceValue, TensorValue
from api.strict import StrictRoute
from api.submission import ready_models
from core.errors import UnknownModelError
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, resolve
from core.recipe.naming import source_names
from core.recipe.output import OutputTensor, walk
from store import models
from store.session import ReadSession

router = APIRouter(prefix="/v1", tags=["recipes"], route_class=StrictRoute)


@router.post("/recipes:resolve", responses=problems(413, 415, 422))
def resolve_recipe(wanted: ResolveIn, s: Reading) -> ResolveOut:
    """Resolve a recipe over registered models: one value for every tensor, and the digest of it all."""
    known = _models(s, wanted)
    resolved = resolve(wanted.recipe, known)
    digests = {name: model.weights_digest for name, model in known.items()}
    names = source_names(wanted.recipe, resolved, digests)
    return ResolveOut(
        digest=resolved.digest(),
        layers=len(resolved.layers),
        layer_keys=resolved.layer_keys(),
        tensors=tuple(_tensors(resolved, names)),
        resolved=resolved,
    )


def _models(s: ReadSession, wanted: ResolveIn) -> dict[str, Model]:
    refs = {name: wanted.models.get(name, name) for name in _model_names(wanted.recipe)}
    ready = ready_models(s, refs)
    for name, ref in refs.items():
        if name not in ready:
            raise UnknownModelError.suggest(ref, models.names(s), where=f"models.{name}")
    return ready


def _model_names(recipe: Recipe) -> Iterator[str]:
    for source in recipe.sources:
        if source.recipe is not None:
            yield from _model_names(source.recipe)
        else:
            yield str(source.model)


def _tensors(resolved: ResolvedRecipe, names: tuple[str, ...]) -> Iterator[TensorValue]:
    positions = {id(entry): index for index, entry in enumerate(resolved.layers)}
    for tensor in walk(resolved):
        yield TensorValue(
            tensor=tensor.name,
            layer=positions.get(id(tensor.entry)),
            method=tensor.entry.method,
            params=tensor.params,
            scale=tensor.group.scale,
            sources=tuple(_sources(tensor, names)),
        )


def _sources(tensor: OutputTensor, names: tuple[str, ...]) -> Iterator[SourceValue]:
    entry, given = tensor.entry, tensor.source_params
    for position, (source, layer) in enumerate(entry.sources):
        yield SourceValue(
            source=names[source],
            layer=None if layer < 0 else layer,
            base=position == entry.base,
            params=given[position] if position < len(given) else {},
        )
