"""Whether models fit a generator of weights: those that it learns from, and those that a search samples around."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.architectures import architecture_of
from core.errors import GeneratorMisfitError, MissingGeneratorError
from core.jobs import GeneratorJob, SearchJob
from core.model import Model, check_fit
from core.recipe.ingredients import names_in
from core.recipe.resolve import resolve
from core.recipe.short import Recipe
from core.selectors import select
from core.space_spec import GenerationFamily, OwnGenerator


class Learned(NamedTuple):
    """What a generator says of itself.

    Attributes:
        models: weights digests of all that it was trained on.
        tensors: that it can sample, by name.
    """

    models: tuple[str, ...]
    tensors: tuple[str, ...]


#: The generator's digest to what it has learned.
Lineage = Callable[[str], Learned]


def check_sources(job: GeneratorJob, models: Mapping[str, Model]) -> None:
    """Check what is known of the models that a generator is to learn from.

    Args:
        job: the training.
        models: those of its models whose headers are known, by name.

    Raises:
        ParentsDoNotFitError: models of several architectures, depths or vocabularies.
        SelectorError: a selector that finds nothing in the base.
    """
    known = [models[model.name] for model in job.models if model.name in models]
    # Snapshots are often saved without their tokenizer, and no selected tensor has a row per token.
    reading = [model for model in known if model.header.tokenizer_digest is not None]
    for group, same in ((reading, True), (known, False)):
        if group:
            check_fit(group, same_depth=True, same_vocabulary=same)
    base = models.get(job.models[0].name)
    if base is not None:
        names = [tensor.name for tensor in base.header.tensors]
        select(names, architecture_of(base.header.model_type), base.header.layers, job.settings.selectors)


def check_lineage(job: SearchJob, models: Mapping[str, Model], lineage: Lineage) -> None:
    """Check that generators were trained on what they are to sample around.

    Args:
        job: the search, its generators named by digest.
        models: those of its models that are known, by name.
        lineage: told by the artifacts.

    Raises:
        GeneratorMisfitError: a generator has never seen a model, or a tensor that is to be sampled.
        SelectorError: a selector that finds nothing in what is sampled around.
        MissingGeneratorError: `lineage` knows no such generator.
    """
    for family in job.space.families:
        if isinstance(family, GenerationFamily):
            if isinstance(family.generator, OwnGenerator):
                continue  # It learns from whatever it samples around.
            known = lineage(family.generator)
            foreign = [digest for digest in _around(job, family, models) if digest not in known.models]
            if foreign:
                raise GeneratorMisfitError(
                    f"a generator samples around the models it was trained on, but {foreign[0]!r} is none of "
                    f"{list(known.models)!r}: take one of these as the base, or train it anew",
                    where="generator",
                )
            _check_tensors(job, family, models, known.tensors)


def _check_tensors(
    job: SearchJob, family: GenerationFamily, models: Mapping[str, Model], tensors: Sequence[str]
) -> None:
    """Every tensor that is to be sampled is one that the generator has learned, as far as a header is known."""
    around = names_in(family.around) if isinstance(family.around, Recipe) else (family.base or job.models[0].name,)
    base = next((models[name] for name in around if name in models), None)
    if base is None:
        return
    names = [info.name for info in base.header.tensors]
    chosen = select(names, architecture_of(base.header.model_type), base.header.layers, family.selectors)
    unknown = [target.name for target in chosen if target.name not in tensors]
    if unknown:
        raise GeneratorMisfitError(
            f"a generator samples the tensors that it was trained on, but of {list(family.selectors)!r} it does not "
            f"know {unknown[0]!r}: choose other selectors, or train it with these",
            where="selectors",
        )


def read_lineage(folder: Path) -> Learned:
    """What a generator was trained on, from its folder.

    Raises:
        MissingGeneratorError: it is gone, or cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return Learned(tuple(config["lineage"]), tuple(tensor["name"] for tensor in config["tensors"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingGeneratorError(
            f"the generator {folder.name!r} is no longer there ({type(error).__name__}): train it anew",
            where="generator",
        ) from error


def _around(job: SearchJob, family: GenerationFamily, models: Mapping[str, Model]) -> tuple[str, ...]:
    """Weights digests of what is sampled around, as far as that is known."""
    if not isinstance(family.around, Recipe):
        base = models.get(family.base or job.models[0].name)
        return () if base is None else (base.weights_digest,)
    if any(model.name not in models for model in job.models):
        return ()
    return resolve(family.around, models).model_digests()
