"""What a user posts: a job, by kind."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Discriminator, Field, Tag, model_validator

from core.catalog import catalog
from core.errors import (
    BudgetError,
    InvalidInputError,
    SpaceError,
    UnknownModelError,
    UnknownNameError,
    UnknownTaskError,
)
from core.generators import MOST_SOURCES, Training, checked, too_many, training
from core.noun import Noun
from core.objective import Objective, TaskSpec
from core.recipe.ingredients import names_in
from core.recipe.short import Dtype, Name, Recipe
from core.refinement import Refine
from core.space import SearchSpace, check_weights
from core.space_spec import GenerationFamily, MergeFamily, SpaceSpec

LOCAL_REF = re.compile(r"^local:(?P<path>[^\x00]+)$")
#: Models of one job at most.
MAX_MODELS = 32
HUB_REF = re.compile(r"^hub:(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w.-]+))?$")


Ref = Annotated[str, Field(min_length=1, max_length=500)]


class ModelRef(Noun):
    """A model under the name the job calls it by.

    `ref` is `local:<path under a configured root>`, `hub:<org>/<name>@<commit>`, or the name of a registered model.
    Where it is an adapter, `base` is the job's model that it goes on, and this one is both together.
    """

    name: Name
    ref: Ref
    base: Name | None = Field(default=None, exclude_if=lambda base: base is None)


class Strategy(Noun):
    """The sampler that proposes, by catalogue name (`auto` picks one and says which)."""

    name: str = "auto"
    params: dict[str, Any] = Field(default_factory=dict)


class Budget(Noun):
    """Limits of a search; whichever is reached first ends it. At least one of the first four must be given.

    Attributes:
        trials: candidates proposed (parents, and what a warm start brought along, not counted).
        item_evaluations: items scored in the search, parents included; confirmation is not counted.
        seconds: wall time since the job started running, pauses not counted.
        device_seconds: seconds of devices spent on building, scoring and refining, parents included.
        expected_improvement: in percentage points; the search ends once the surrogate expects less than this of the
            best place left to try. It may never be reached, so it stands beside another limit.
    """

    trials: Annotated[int, Field(ge=0, le=100_000)] | None = None
    item_evaluations: Annotated[int, Field(ge=0)] | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    device_seconds: Annotated[float, Field(ge=0)] | None = Field(default=None, exclude_if=lambda limit: limit is None)
    expected_improvement: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, exclude_if=lambda limit: limit is None
    )

    @property
    def amounts(self) -> dict[str, float | None]:
        """The limits that are used up as the search goes on, by name."""
        return {name: getattr(self, name) for name in AMOUNTS}

    def extended(self, further: Budget) -> Budget:
        """These limits with those of `further` in their place.

        Raises:
            BudgetError: nothing is named, or a limit would end the search sooner than before.
        """
        named = {name: value for name, value in dict(further).items() if value is not None}
        if not named:
            raise BudgetError("an extension raises at least one limit, but names none: set trials", where="budget")
        for name, value in named.items():
            before = getattr(self, name)
            sooner = before is None or (value > before if name == "expected_improvement" else value < before)
            if sooner:
                raise BudgetError(
                    f"an extension only lets a search go on, but {name!r} would change from {before!r} to {value!r}: "
                    "give its new total, or leave it out",
                    where=f"budget.{name}",
                )
        return self.evolve(**named)


#: The limits of a budget that are used up, in the order in which they are shown.
AMOUNTS = ("trials", "item_evaluations", "seconds", "device_seconds")


class ExportSpec(Noun):
    """What happens to the winner.

    Attributes:
        save_dtype: the dtype candidates are rounded to before they are scored and in which the winner is saved.
        when: `gain` exports only a proven winner, `always` the best candidate whatever the verdict, `never` none.
        max_shard_bytes: size limit of one safetensors file.
    """

    save_dtype: Dtype = "bfloat16"
    when: Literal["gain", "always", "never"] = "gain"
    max_shard_bytes: Annotated[int, Field(ge=1024)] = 5 * 2**30


class Racing(Noun):
    """Rungs of items per task, and the share (1/eta) that is promoted from each.

    `rungs` None takes the default 50, 200, 1000; every rung is cut to the number of search items there are, and a
    last rung of all search items is added.
    """

    rungs: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    eta: Annotated[int, Field(ge=2, le=10)] = 3
    finalists: Annotated[int, Field(ge=1, le=10)] = 3


class Confirmation(Noun):
    """The proof on held-out items.

    Attributes:
        final_split: share of the held-out items that is kept back from the proof and read once, after the verdict and
            only if that is a gain, for the winner and the best parent; 0 keeps none back.
        also: tasks that the search never reads. Their held-out items are read after the verdict, whatever it is, for
            the winner and the best parent; what comes of it stands beside the verdict and changes nothing of it.
    """

    final_split: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    also: Annotated[tuple[TaskSpec, ...], Field(max_length=8)] = Field(default=(), exclude_if=lambda tasks: not tasks)


JobId = Annotated[str, Field(pattern=r"^job_[0-9A-Z]{1,40}$")]
#: A generator that is not trained yet, where a digest has to stand.
UNTRAINED = "0" * 64


class Opening(NamedTuple):
    """What a search has got of the generator that it trained: its digest, and the best candidate it learned from."""

    generator: str
    best: Recipe | None


class Lesson(NamedTuple):
    """What a training learns from, beside candidates, and how.

    Attributes:
        models: names of the job's models; the first one is the base.
        settings: of the training.
    """

    models: tuple[str, ...]
    settings: Training


class SearchJob(Noun):
    """A search over recipes for the best score, its proof on held-out items, and its export.

    `warm_start` names other jobs whose candidates this one begins with, where they fit its space.
    """

    kind: Literal["search"] = "search"
    name: Annotated[str, Field(max_length=200)] = ""
    models: Annotated[tuple[ModelRef, ...], Field(min_length=1, max_length=MAX_MODELS)]
    space: SpaceSpec
    objective: Objective
    strategy: Strategy = Strategy()
    budget: Budget
    parallel: Annotated[int, Field(ge=1, le=256)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    racing: Racing = Racing()
    refine: Refine = Field(default=Refine(), exclude_if=lambda refine: refine == Refine())
    max_consecutive_failures: Annotated[int, Field(ge=1)] = 20
    confirmation: Confirmation = Field(default=Confirmation(), exclude_if=lambda given: given == Confirmation())
    export: ExportSpec = ExportSpec()
    warm_start: Annotated[tuple[JobId, ...], Field(max_length=16)] = Field(default=(), exclude_if=lambda jobs: not jobs)

    @model_validator(mode="after")
    def _names_are_unique(self) -> SearchJob:
        _check_model_names(self.models)
        return self

    @model_validator(mode="after")
    def _also_is_new(self) -> SearchJob:
        names = [spec.task for spec in self.confirmation.also]
        known = [spec.task for spec in self.objective.tasks]
        twice = next((name for name in names if names.count(name) > 1 or name in known), None)
        if twice is not None:
            raise ValueError(f"`confirmation.also` names tasks that the search does not read, once, but has {twice!r}")
        return self

    @property
    def beyond(self) -> SearchJob | None:
        """The same over the tasks that only its confirmation reads; None without any."""
        if not self.confirmation.also:
            return None
        protocol = "search" if self.objective.rules.tasks else self.objective.protocol
        also = Objective(tasks=self.confirmation.also, protocol=protocol)
        return self.evolve(objective=also, confirmation=self.confirmation.evolve(also=()))

    def search_space(self, depth: int, opening: Opening | None = None) -> SearchSpace:
        """The compiled space over parents of `depth` layers.

        Args:
            depth: of the parents.
            opening: what came of the search's own generator. Before that its family is closed, if there are others.
        """
        late = self.sampled is not None and opening is None and len(self.space.families) > 1
        return self._compiled(depth, opening, ("generation",) if late else ())

    def whole_space(self, depth: int) -> SearchSpace:
        """All that the space will ever be, its candidates with `UNTRAINED` for a generator that is not there yet."""
        return self._compiled(depth, None, ())

    @property
    def sampled(self) -> GenerationFamily | None:
        """The family that samples from a generator which the search trains itself, if there is one."""
        families = (family for family in self.space.families if isinstance(family, GenerationFamily))
        return next((family for family in families if family.own is not None), None)

    @property
    def lesson(self) -> Lesson | None:
        """What the search's own generator learns from beside candidates; None without one."""
        family = self.sampled
        if family is None or family.own is None:
            return None
        base = family.base or self.models[0].name
        around = names_in(family.around) if isinstance(family.around, Recipe) else ()
        others = tuple(model.name for model in self.models) if family.own.parents else around
        return Lesson(tuple(dict.fromkeys((base, *others))), family.settings)

    def _compiled(self, depth: int, opening: Opening | None, closed: tuple[str, ...]) -> SearchSpace:
        spec, family = self.space, self.sampled
        if family is not None:
            generator, best = opening or Opening(UNTRAINED, None)
            opened = family.opened(generator, best)
            spec = spec.evolve(families=tuple(opened if each is family else each for each in spec.families))
        names = [model.name for model in self.models]
        return SearchSpace(spec, names, depth=depth, save_dtype=self.export.save_dtype, seed=self.seed, closed=closed)


class Elite(Noun):
    """The best candidates of a search, told to a generator with their scores.

    Attributes:
        job: the search.
        top: how many of those that were scored on most items, the best first; with the models at most as many as a
            generator learns from.
    """

    job: JobId
    top: Annotated[int, Field(ge=1, lt=MOST_SOURCES)] = 8


class Trajectory(Noun):
    """Snapshots of a fine-tune that a generator learns from, the earliest first: a folder of them, or one by one.

    Attributes:
        folder: `local:<path>` of a folder with subfolders `checkpoint-<step>`, as transformers' Trainer writes them;
            whole models, or adapters on the job's first model.
        snapshots: models in order, each `local:…`, `hub:…` or the name of a registered one.
        last: so many of them, the latest.
    """

    folder: Annotated[str, Field(pattern=LOCAL_REF.pattern, max_length=500)] | None = None
    snapshots: Annotated[tuple[Ref, ...], Field(max_length=MAX_MODELS)] = ()
    last: Annotated[int, Field(ge=1, le=MAX_MODELS - 1)] = 16

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.folder is None) == (not self.snapshots):
            raise ValueError("a trajectory is a `folder` or a list of `snapshots`: name one of the two")
        return self


class GeneratorJob(Noun):
    """The training of a generator of weights.

    Attributes:
        models: what it learns from. The first one is the base: what is measured and sampled around. Once posted, the
            snapshots of its trajectory are among them.
        trajectory: snapshots of a fine-tune that it learns from as well.
        elite: candidates of a search that it learns from as well.
        preset: of the settings, by name.
        training: settings that differ from the preset's, by name.
    """

    kind: Literal["generator"] = "generator"
    name: Annotated[str, Field(max_length=200)] = ""
    models: Annotated[tuple[ModelRef, ...], Field(min_length=1, max_length=MAX_MODELS)]
    trajectory: Trajectory | None = Field(default=None, exclude_if=lambda trajectory: trajectory is None)
    elite: Elite | None = None
    preset: str = "default"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_read(self) -> GeneratorJob:
        _check_model_names(self.models)
        if self.models[0].base is not None:
            raise ValueError(f"the first model is the base, but {self.models[0].name!r} is an adapter: put it later")
        settings = checked(self.preset, self.training)
        alone = len(self.models) == 1 and self.elite is None and self.trajectory is None
        if settings.parameterisation == "delta" and alone:
            raise ValueError("`delta` codes differences of sources and needs two, but there is one: take `gain`")
        if self.elite is not None and (why := too_many(len(self.models), self.elite.top, "elite.top")):
            raise ValueError(why)
        return self

    @property
    def settings(self) -> Training:
        """The settings in force."""
        return training(self.preset, **self.training)

    @property
    def lesson(self) -> Lesson:
        """What it learns from beside candidates, and how."""
        return Lesson(tuple(model.name for model in self.models), self.settings)


def _check_model_names(models: tuple[ModelRef, ...]) -> None:
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise ValueError(f"model names must be unique, but got {names!r}: rename one")
    plain = [model.name for model in models if model.base is None]
    odd = next((model for model in models if model.base is not None and model.base not in plain), None)
    if odd is not None:
        raise ValueError(
            f"`base` of {odd.name!r} must be one of the job's models that has none itself, {plain!r}, but is "
            f"{odd.base!r}: name one of them"
        )


#: Every job kind by its name; a new kind joins here and in the union.
KINDS: dict[str, type[SearchJob] | type[GeneratorJob]] = {"search": SearchJob, "generator": GeneratorJob}


def _kind_of(job: Any) -> Any:
    return job.get("kind", "search") if isinstance(job, dict) else getattr(job, "kind", None)


Job = Annotated[
    Annotated[SearchJob, Tag("search")] | Annotated[GeneratorJob, Tag("generator")], Discriminator(_kind_of)
]


def read_job(fields: dict[str, Any]) -> SearchJob | GeneratorJob:
    """A job from its JSON form; without a kind it is a search.

    Raises:
        UnknownNameError: no such kind.
        pydantic.ValidationError: the job breaks a rule.
    """
    kind = _kind_of(fields)
    if kind not in KINDS:
        raise UnknownNameError.suggest(str(kind), KINDS, where="kind")
    return KINDS[kind].model_validate_json(json.dumps(fields))


def check_job(job: SearchJob, *, tasks: frozenset[str] | set[str] | None = None) -> None:
    """Check what can be checked without headers.

    Args:
        job: the job.
        tasks: known task names; None skips that check.

    Raises:
        BudgetError, UnknownTaskError, UnknownMethodError, UnknownLayoutError, UnknownStrategyError, UnknownNameError,
        InvalidInputError, UnknownModelError, SpaceError, RecipeError: the rule that is broken.
    """
    budget = job.budget
    limits = tuple(budget.amounts.values())
    if all(limit is None for limit in limits) or any(limit is not None and limit <= 0 for limit in limits):
        raise BudgetError(
            f"a budget needs at least one of {', '.join(AMOUNTS)}, each above 0, but got {budget!r}: set trials",
            where="budget",
        )
    if job.strategy.name != "auto":
        catalog().strategy(job.strategy.name).filled(job.strategy.params)
    elif job.strategy.params:
        raise InvalidInputError(
            f"`auto` takes no parameters, but got {job.strategy.params!r}: name a strategy", where="strategy.params"
        )
    for spec in (*job.objective.tasks, *job.confirmation.also):
        if tasks is not None and spec.task not in tasks:
            raise UnknownTaskError.suggest(spec.task, tasks, where="objective.tasks")
    # A depth that no preset rejects: real depths are known only once headers are.
    job.whole_space(depth=1024)
    _check_own_generator(job)
    for family in job.space.families:
        if isinstance(family, MergeFamily):
            check_weights(family)


def _check_own_generator(job: SearchJob) -> None:
    """A search that trains its own generator must come to it, and be able to learn something."""
    family, lesson = job.sampled, job.lesson
    if family is None or family.own is None or lesson is None:
        return
    after, trials = family.own.train_after, job.budget.trials
    if trials is not None and trials <= after:
        raise BudgetError(
            f"a search of {trials} candidates ends before its generator is trained after {after}: raise trials, or "
            "train earlier",
            where="budget.trials",
        )
    if after > 0 and (why := too_many(len(lesson.models), family.own.top, "generator.top")):
        raise SpaceError(why, where="generator.top")
    base = next(model for model in job.models if model.name == lesson.models[0])
    if base.base is not None:
        raise SpaceError(
            f"a generator's base is a whole model, but {base.name!r} is an adapter: name another", where="base"
        )
    if lesson.settings.parameterisation == "delta" and after == 0 and len(lesson.models) == 1:
        raise SpaceError(
            "`delta` codes differences of sources and needs two, but there is one: take `gain`, or set `parents`",
            where="generator",
        )


def check_names(job: SearchJob | GeneratorJob, known: frozenset[str] | set[str]) -> None:
    """Check that model references which are neither local nor hub are registered names.

    Raises:
        UnknownModelError: with suggestions.
    """
    for model in job.models:
        if not (LOCAL_REF.match(model.ref) or HUB_REF.match(model.ref)) and model.ref not in known:
            raise UnknownModelError.suggest(model.ref, known, where=f"models.{model.name}")
