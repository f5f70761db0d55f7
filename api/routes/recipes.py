"""Recipes: what each tensor of a candidate would get."""

from __future__ import annotations

from collections.abc import Iterator

import yaml
from fastapi import APIRouter

from api.access import Reading
from api.answers import problems
from api.schemas.recipes import MergekitIn, MergekitOut, ResolveIn, ResolveOut, SourceValue, TensorValue
from api.strict import StrictRoute
from api.submission import ready_models
from core.adapters import Adapter
from core.errors import UnknownModelError
from core.mergekit import Knowledge, from_mergekit, model_names, native_dtype, to_mergekit
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, resolve_named
from core.recipe.ingredients import models_in, names_in
from core.recipe.output import OutputTensor, walk
from core.recipe.remarks import remarks
from store import models
from store.session import ReadSession

router = APIRouter(prefix="/v1", tags=["recipes"], route_class=StrictRoute)


@router.post("/recipes:resolve", responses=problems(413, 415, 422))
def resolve_recipe(wanted: ResolveIn, s: Reading) -> ResolveOut:
    """Resolve a recipe or a mergekit configuration over registered models: one value for every tensor, and the digest
    of it all."""
    known = _ready(s, _names(wanted), wanted.models)
    recipe, notes = _recipe(wanted, known)
    resolved, names = resolve_named(recipe, known)
    return ResolveOut(
        digest=resolved.digest(),
        layers=len(resolved.layers),
        layer_keys=resolved.layer_keys(),
        tensors=tuple(_tensors(resolved, names)),
        resolved=resolved,
        recipe=recipe,
        notes=(*notes, *remarks(recipe, resolved, models_in(recipe, known).values())),
    )


@router.post("/recipes:to-mergekit", responses=problems(413, 415, 422))
def write_mergekit(wanted: MergekitIn, s: Reading) -> MergekitOut:
    """Say a recipe in mergekit's words, or why that cannot be done."""
    names = names_in(wanted.recipe)
    known = ready_models(s, {name: wanted.models.get(name, name) for name in names})
    depths = {name: model.header.layers for name, model in known.items() if isinstance(model, Model)}
    form = to_mergekit(wanted.recipe, depths)
    text = yaml.safe_dump_all(form.documents, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return MergekitOut(config=form.config, yaml=text, notes=form.notes)


def _names(wanted: ResolveIn) -> tuple[str, ...]:
    if wanted.recipe is not None:
        return names_in(wanted.recipe)
    return model_names(wanted.mergekit or {})


def _ready(s: ReadSession, names: tuple[str, ...], called: dict[str, str]) -> dict[str, Model | Adapter]:
    refs = {name: called.get(name, name) for name in names}
    ready = ready_models(s, refs)
    for name, ref in refs.items():
        if name not in ready:
            raise UnknownModelError.suggest(ref, models.names(s), where=f"models.{name}")
    return ready


def _recipe(wanted: ResolveIn, known: dict[str, Model | Adapter]) -> tuple[Recipe, tuple[str, ...]]:
    if wanted.recipe is not None:
        return wanted.recipe, ()
    dtypes = {name: native_dtype(model.header) for name, model in known.items() if isinstance(model, Model)}
    made = from_mergekit(wanted.mergekit or {}, Knowledge(dtypes=dtypes))
    return made.recipe, made.notes


def _tensors(resolved: ResolvedRecipe, names: tuple[str, ...]) -> Iterator[TensorValue]:
    positions = {id(entry): index for index, entry in enumerate(resolved.layers)}
    for tensor in walk(resolved):
        yield TensorValue(
            tensor=tensor.name,
            layer=positions.get(id(tensor.entry)),
            method=tensor.entry.method,
            params=tensor.params,
            scale=tensor.group.scale,
            part=tensor.group.part,
            shift=tensor.group.shift,
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
