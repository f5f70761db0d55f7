"""Every failure Huarizo can name.

    HuarizoError
    ├── InvalidInputError            the request breaks a rule
    │   ├── UnknownNameError         no such method, preset, strategy, task, model ... (did you mean)
    │   ├── UnknownMethodError / UnknownTaskError / UnknownModelError / UnknownLayoutError / UnknownStrategyError
    │   ├── RecipeError              a recipe that cannot be resolved (weights sum to zero, bad value form ...)
    │   │   └── MergekitError        what a mergekit configuration or a recipe says and the other cannot
    │   ├── LayoutError              layer indices out of range
    │   ├── SelectorError            a selector that finds no tensor of the model
    │   ├── SpaceError               values or a recipe outside the search space
    │   │   └── RadiusLostError      a radius of samples that rounding takes away in part
    │   ├── BudgetError              an empty budget
    │   └── TooLargeError            a request over a documented limit
    ├── ParentsDoNotFitError         shapes, vocabulary, architecture or RoPE base differ
    ├── CheckpointError              a checkpoint that cannot be used
    │   ├── MissingCheckpointError / TruncatedCheckpointError / NonFiniteCheckpointError
    │   ├── PickleCheckpointError / QuantisedCheckpointError
    │   └── PathNotAllowedError      a local path outside the configured roots
    ├── GeneratorError               a generator of weights that cannot be used
    │   ├── MissingGeneratorError    none of that digest is at hand, or a part of it is absent
    │   ├── GeneratorMisfitError     it was not trained for this base, or not for these tensors
    │   └── TrainingDivergedError    its training came to a loss that is no number
    ├── TaskError                    a benchmark that cannot be loaded or scored
    ├── TrialError                   one candidate failed; the search goes on
    │   ├── NonFiniteWeightsError / OutOfMemoryError / TrialTimeoutError
    │   ├── OutcomeConflictError     a document would be scored twice
    │   └── SampleError              sampled weights that are not worth an evaluation
    │       ├── SampleNormError / SamplePeakError    a tensor's norm or largest weight left its range
    │       ├── SampleUnchangedError                 nothing, or too little, is left of the change after rounding
    │       └── SamplePerplexityError                the perplexity rose too far
    ├── NotFoundError / ConflictError    what the API answers 404 and 409 to
    ├── DiskFullError                no space is left for an export
    ├── LeaseLostError               another worker holds the step now
    ├── CancelledError               the step was cancelled
    └── EmbeddedServerError / ServiceUnavailableError    database or broker cannot be had

Each class has a stable `code`. Messages say rule, value and way out. HTTP status codes live in `api/errors.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class HuarizoError(Exception):
    """The root. `code` is stable and documented; `where` names the offending field or tensor, if one is known."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where


class InvalidInputError(HuarizoError):
    """The request breaks a rule that can be checked without weights."""

    code = "invalid_input"


class UnknownNameError(InvalidInputError):
    """A name that no registry, catalogue or table holds."""

    code = "unknown_name"
    noun: ClassVar[str] = "name"

    @classmethod
    def suggest(cls, name: str, known: Iterable[str], *, where: str | None = None) -> UnknownNameError:
        """Build the error with the nearest known names as the way out."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(names) or 'none'}"
        return cls(f"unknown {cls.noun} {name!r}: {hint}", where=where)


class UnknownMethodError(UnknownNameError):
    """No merge method of that name."""

    code = "unknown_method"
    noun = "merge method"


class UnknownTaskError(UnknownNameError):
    """No benchmark of that name."""

    code = "unknown_task"
    noun = "task"


class UnknownModelError(UnknownNameError):
    """No model of that name in the job or the registry."""

    code = "unknown_model"
    noun = "model"


class UnknownLayoutError(UnknownNameError):
    """No layout preset of that name."""

    code = "unknown_layout"
    noun = "layout preset"


class UnknownStrategyError(UnknownNameError):
    """No search strategy of that name."""

    code = "unknown_strategy"
    noun = "strategy"


class RecipeError(InvalidInputError):
    """A recipe that cannot be resolved."""

    code = "invalid_recipe"


class MergekitError(RecipeError):
    """A mergekit configuration that has no recipe, or a recipe that has no mergekit configuration."""

    code = "mergekit_unsupported"

    def __init__(self, message: str, *, where: str | None = None, reasons: Iterable[str] = ()) -> None:
        super().__init__(message, where=where)
        #: Each thing that cannot be said, where several were found.
        self.reasons = tuple(reasons) or (message,)


class LayoutError(InvalidInputError):
    """Layer indices that the source does not have, or a layout that leaves none."""

    code = "layout_out_of_range"


class SelectorError(InvalidInputError):
    """A selector that finds no tensor of the model."""

    code = "bad_selector"


class SpaceError(InvalidInputError):
    """Values outside the search space, or a recipe that the space cannot express."""

    code = "outside_space"


class RadiusLostError(SpaceError):
    """A radius of samples so small that the rounding to the storage dtype takes it away in part."""

    code = "radius_lost"


class BudgetError(InvalidInputError):
    """A budget that allows no trial."""

    code = "empty_budget"


class TooLargeError(InvalidInputError):
    """A request over a documented limit."""

    code = "too_large"


class ParentsDoNotFitError(HuarizoError):
    """Parents whose headers cannot be combined."""

    code = "parents_do_not_fit"


class CheckpointError(HuarizoError):
    """A checkpoint that cannot be used."""

    code = "bad_checkpoint"


class MissingCheckpointError(CheckpointError):
    """No checkpoint, or a part of it is absent."""

    code = "missing_checkpoint"


class TruncatedCheckpointError(CheckpointError):
    """A safetensors file shorter than its header promises, or with a damaged header."""

    code = "truncated_checkpoint"


class NonFiniteCheckpointError(CheckpointError):
    """A parent's tensor holds NaN or infinity."""

    code = "non_finite_checkpoint"


class PickleCheckpointError(CheckpointError):
    """Only pickled weights: never opened."""

    code = "pickle_checkpoint"


class QuantisedCheckpointError(CheckpointError):
    """Quantised or GGUF weights."""

    code = "quantised_checkpoint"


class PathNotAllowedError(CheckpointError):
    """A local path outside the configured roots, or a hub id outside the allow-list."""

    code = "path_not_allowed"


class GeneratorError(HuarizoError):
    """A generator of weights that cannot be used."""

    code = "bad_generator"


class MissingGeneratorError(GeneratorError):
    """No generator of that digest is at hand, or a part of it is absent."""

    code = "missing_generator"


class GeneratorMisfitError(GeneratorError):
    """A generator that was not trained for this base, or not for these tensors."""

    code = "generator_misfit"


class TrainingDivergedError(GeneratorError):
    """A generator's training whose loss is no finite number any more."""

    code = "training_diverged"


class TaskError(HuarizoError):
    """A benchmark that cannot be loaded or scored."""

    code = "bad_task"


class TrialError(HuarizoError):
    """One candidate failed. It is recorded with this code and the search goes on."""

    code = "trial_failed"


class NonFiniteWeightsError(TrialError):
    """A built tensor holds NaN or infinity."""

    code = "non_finite_weights"


class OutOfMemoryError(TrialError):
    """The device ran out of memory."""

    code = "out_of_memory"


class TrialTimeoutError(TrialError):
    """The candidate took longer than the limit."""

    code = "trial_timeout"


class OutcomeConflictError(TrialError):
    """A document would be scored twice under one key."""

    code = "outcome_conflict"


class SampleError(TrialError):
    """Sampled weights that are not worth an evaluation."""

    code = "sample_refused"


class SampleNormError(SampleError):
    """The norm of a sampled tensor is too far from its base's."""

    code = "sample_norm"


class SamplePeakError(SampleError):
    """A sampled tensor has a weight far larger than any of its base's."""

    code = "sample_peak"


class SampleUnchangedError(SampleError):
    """Too little is left of a sample's change after the rounding to the storage dtype."""

    code = "sample_unchanged"


class SamplePerplexityError(SampleError):
    """The perplexity of a sample is too far above its base's, or not finite."""

    code = "sample_perplexity"


class NotFoundError(HuarizoError):
    """No such row."""

    code = "not_found"


class ConflictError(HuarizoError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class DiskFullError(HuarizoError):
    """No space is left where an export or an artifact should go."""

    code = "disk_full"


class LeaseLostError(HuarizoError):
    """Another worker holds the step now, or its lease ran out."""

    code = "lease_lost"


class CancelledError(HuarizoError):
    """The step was cancelled while it ran."""

    code = "cancelled"


class EmbeddedServerError(HuarizoError):
    """An embedded database or broker cannot be started."""

    code = "embedded_server"


class ServiceUnavailableError(HuarizoError):
    """The database or the broker does not answer."""

    code = "service_unavailable"
