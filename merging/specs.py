"""Parameter specifications that several merge methods share."""

from __future__ import annotations

from core.params import ChoiceParam, FloatParam

#: Weight of a model in an average.
WEIGHT = FloatParam(
    name="weight", default=1.0, search_low=0.0, search_high=1.0, scope="source", about="weight of a source"
)
#: Weight of a task vector: past 1 it extrapolates.
TASK_WEIGHT = WEIGHT.evolve(search_high=1.5)
DENSITY = FloatParam(
    name="density",
    default=1.0,
    low=0.0,
    high=1.0,
    search_low=0.1,
    search_high=1.0,
    scope="source",
    about="share of each task vector that is kept",
)
LAMBDA = FloatParam(
    name="lambda",
    default=1.0,
    search_low=0.3,
    search_high=2.0,
    searched=False,
    about="factor on the merged task vector",
)


def normalize(*, default: bool, divides: bool = False) -> ChoiceParam:
    """Whether the weighted sum is divided by the sum of its weights, and whether it is even where they cancel."""
    return ChoiceParam(
        name="normalize",
        default=default,
        choices=(True, False),
        about="divide by the sum of the weights",
        divides=divides,
    )
