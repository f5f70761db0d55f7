"""What a job says of gradient refinement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from core.noun import Noun

#: Event: how far a refinement is, at each of its looks at the kept-back items.
PROGRESS = "refine_progress"


class Refine(Noun):
    """Following the gradient of the objective in a candidate's smooth coefficients.

    Attributes:
        enabled: `auto` refines wherever the space has smooth parameters and the strategy is `auto`.
        granularity: `holes` moves the values that the space searches, and what it finds is told to the sampler;
            `tensor` gives every tensor a value of its own, which the space cannot express; `both` takes `tensor` for
            the best structure and `holes` for the others, and for the best one where `tensor` finds nothing better.
        structures: how many structures (methods with their choices) are started from, the best first.
        max_items: item evaluations of one refinement at most; a forward and backward pass over an item is three.
        share: of a budget of item evaluations, the part that all refinements together may use.
        batch: items of a minibatch, over all tasks.
        rate: Adam's step size, in units of a coefficient.
        temperature: what the choices' log-likelihoods are divided by before their softmax, in units of the median size
            of the task's margins at the start.
        kept_share: the part of every task's search items on which a refinement is judged and never differentiated.
        kept_most: of one task, so many of them at most.
        polish: candidates around the best refined one that enter the race with it.
    """

    enabled: bool | Literal["auto"] = "auto"
    granularity: Literal["holes", "tensor", "both"] = "both"
    structures: Annotated[int, Field(ge=1, le=32)] = 3
    max_items: Annotated[int, Field(ge=10, le=10_000_000)] = 1500
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    batch: Annotated[int, Field(ge=1, le=4096)] = 48
    rate: Annotated[float, Field(gt=0, le=1)] = 0.06
    temperature: Annotated[float, Field(gt=0, le=1000)] = 0.5
    kept_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    kept_most: Annotated[int, Field(ge=1, le=100_000)] = 30
    polish: Annotated[int, Field(ge=0, le=64)] = 4


#: Trials that a budget must have room for before `auto` refines: with fewer there is no search to shorten.
LEAST_TRIALS = 12
#: So many trials of a budget pay for one refinement, where items are not limited.
TRIALS_EACH = 8
#: Item evaluations below which a refinement is not worth beginning.
LEAST_ITEMS = 300


def applies(refine: Refine, trials: int | None, *, named: bool) -> bool:
    """Whether a job refines at all, where its space has anything smooth.

    Args:
        refine: its rules.
        trials: its budget's.
        named: whether it names a strategy: those are taken as they are unless it asks for more.
    """
    if isinstance(refine.enabled, bool):
        return refine.enabled
    return not named and (trials is None or trials >= LEAST_TRIALS)


def asked(refine: Refine, structures: int) -> int:
    """Refinements of so many structures at most: the best may be refined twice."""
    return structures + (1 if refine.granularity == "both" else 0)


def allowance(refine: Refine, trials: int | None, item_evaluations: int | None, wanted: int) -> tuple[int, int]:
    """Item evaluations of each of the `wanted` refinements, and how many there may be, within a budget."""
    most = wanted
    if trials is not None:
        most = max(1, trials // TRIALS_EACH)
    if item_evaluations is None:
        return refine.max_items, most
    together = int(refine.share * item_evaluations)
    most = min(most, together // min(LEAST_ITEMS, refine.max_items))
    return min(refine.max_items, together // max(1, min(wanted, most))), most
