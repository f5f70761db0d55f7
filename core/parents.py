"""Whether a job's parents fit its space: what can only be checked once headers are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from core.adapters import Adapter, adapt
from core.catalog import catalog
from core.errors import InvalidInputError, MissingCheckpointError, ParentsDoNotFitError
from core.jobs import ModelRef, SearchJob
from core.model import Model, check_fit
from core.params import IntParam, Scalar
from core.recipe.ingredients import Registered
from core.recipe.resolve import resolve
from core.recipe.short import Recipe
from core.space import SearchSpace
from core.space_spec import GenerationFamily, LayoutFamily, MergeFamily


def job_parents(refs: Iterable[ModelRef], registered: Registered) -> dict[str, Model]:
    """A job's models by name, each adapter on its base; those that are not registered yet are left out.

    Args:
        refs: how the job names them.
        registered: models and adapters by the names that the job uses.

    Raises:
        InvalidInputError: an adapter without a base, or a base for a whole model.
        ParentsDoNotFitError: an adapter of another base.
    """
    found: dict[str, Model] = {}
    for ref in refs:
        parent = registered.get(ref.name)
        if isinstance(parent, Adapter):
            base = registered.get(_base_of(ref))
            if isinstance(base, Adapter):
                raise InvalidInputError(f"{ref.base!r} is an adapter itself: name a whole model", where="models")
            if base is not None:
                found[ref.name] = adapt(base, parent, name=ref.name)
        elif parent is not None:
            if ref.base is not None:
                raise InvalidInputError(f"{ref.name!r} is no adapter: leave out its `base`", where="models")
            found[ref.name] = parent
    return found


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
                check_fit(merged, same_depth=True, same_vocabulary=family.tokenizer is None)
    if all(model.name in models for model in job.models):
        for recipe in _samples(job, models):
            resolve(recipe, models)


def _base_of(ref: ModelRef) -> str:
    if ref.base is None:
        raise InvalidInputError(
            f"{ref.name!r} is an adapter: name the job's model that it goes on in `base`", where="models"
        )
    return ref.base


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
            yield from job.whole_space(depth).uniform()
        elif isinstance(family, GenerationFamily):
            name = family.base or job.models[0].name
            yield from _default_draws(job.whole_space(models[name].header.layers), family)
        else:
            for source in family.sources:
                space = job.whole_space(models[source].header.layers)
                yield from (_default_layout(space, family, preset, source) for preset in family.presets)


def _default_draws(space: SearchSpace, family: GenerationFamily) -> Iterator[Recipe]:
    """A sample of every arm, each value at its default."""
    for arm in family.arms:
        wanted: dict[str, Scalar] = {"family": family.family, "generation.arm": arm}
        for hole in space.holes:
            if hole.name.startswith(f"generation.{arm}."):
                wanted[hole.name] = hole.within(hole.spec.default)
        known = {hole.name for hole in space.holes}
        yield space.fill({name: value for name, value in wanted.items() if name in known})


def _default_layout(space: SearchSpace, family: LayoutFamily, preset: str, source: str) -> Recipe:
    wanted: dict[str, Scalar] = {"family": family.family, "layout.preset": preset, "layout.source": source}
    for hole in space.holes:
        # The smallest cut fits every stack that the preset fits at all.
        if hole.name.startswith(f"layout.{preset}.") and isinstance(hole.spec, IntParam):
            wanted[hole.name] = hole.spec.search_low
    known = {hole.name for hole in space.holes}
    return space.fill({name: value for name, value in wanted.items() if name in known})
