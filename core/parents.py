"""Whether a job's parents fit its space: what can only be checked once headers are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from core.catalog import catalog
from core.errors import MissingCheckpointError, ParentsDoNotFitError
from core.jobs import SearchJob
from core.model import Model, check_fit
from core.params import IntParam, Scalar
from core.recipe.resolve import resolve
from core.recipe.short import Recipe
from core.space import SearchSpace
from core.space_spec import LayoutFamily, MergeFamily


def check_parents(job: SearchJob, models: Mapping[str, Model]) -> None:
    """Check a job against the headers of its models.

    Args:
        job: the job.
        models: those of the job's models whose headers are known, by the name the job calls them by. Where some are
            missing, only what the known ones decide is checked.

    Raises:
        MissingCheckpointError: a model without a tokenizer.
        ParentsDoNotFitError: parents of a merge that cannot be combined; two that differ in their config alone.
        LayoutError: a layout preset that does not fit the stack it is over.
        RecipeError: fixed values that no candidate can have (out of bounds, weights that sum to zero).
        SpaceError: bounds that the real depth does not allow.
    """
    _check_each(models)
    for family in job.space.families:
        if isinstance(family, MergeFamily):
            merged = [models[name] for name in _merged(family, job) if name in models]
            if merged:
                check_fit(merged, same_depth=True)
    if all(model.name in models for model in job.models):
        for recipe in _samples(job, models):
            resolve(recipe, models)


def _check_each(models: Mapping[str, Model]) -> None:
    """Every model has a tokenizer, and no two of them differ in their config alone: the second would be hidden."""
    seen: dict[str, Model] = {}
    for name, model in models.items():
        if model.header.tokenizer_files is None:
            raise MissingCheckpointError(
                f"{name!r} has no tokenizer.json or tokenizer.model: copy it to the checkpoint"
            )
        twin = seen.setdefault(model.weights_digest, model)
        if twin.header.config_digest != model.header.config_digest:
            raise ParentsDoNotFitError(
                f"{twin.name!r} and {name!r} have the same weights under different configs: post a job for each"
            )


def _merged(family: MergeFamily, job: SearchJob) -> Iterator[str]:
    """Names of the models a merge family combines, the base included where a method takes it."""
    yield from family.sources or (model.name for model in job.models if model.name != family.base)
    if family.base is not None and any(catalog().method(name).base_of(family.base) for name in family.methods):
        yield family.base


def _samples(job: SearchJob, models: Mapping[str, Model]) -> Iterator[Recipe]:
    """One candidate for every method and for every layout preset over every source."""
    for family in job.space.families:
        if isinstance(family, MergeFamily):
            depth = models[next(_merged(family, job))].header.layers
            yield from job.search_space(depth).uniform()
        else:
            for source in family.sources:
                space = job.search_space(models[source].header.layers)
                yield from (_default_layout(space, family, preset, source) for preset in family.presets)


def _default_layout(space: SearchSpace, family: LayoutFamily, preset: str, source: str) -> Recipe:
    wanted: dict[str, Scalar] = {"family": family.family, "layout.preset": preset, "layout.source": source}
    for hole in space.holes:
        # The smallest cut fits every stack that the preset fits at all.
        if hole.name.startswith(f"layout.{preset}.") and isinstance(hole.spec, IntParam):
            wanted[hole.name] = hole.spec.search_low
    known = {hole.name for hole in space.holes}
    return space.fill({name: value for name, value in wanted.items() if name in known})
