"""What is heard of candidates: from stored outcomes, against the study's reference, once per candidate and rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.errors import HuarizoError
from core.recipe import resolve
from core.records import HeardScore, TrialBrief
from core.states import TrialState
from search import plan
from search.finalists import PARENT
from search.scores import Floats, Heard, paired, plain, smooth
from store import events, trials
from store.session import ReadSession, Session
from workers.phases.history import Results, results
from workers.phases.study import Search

#: Event: the candidate or parent that all are compared with.
REFERENCE = "reference"
_ALIVE = (TrialState.RUNNING, TrialState.WAITING, TrialState.SCORED, TrialState.STOPPED)


def choose_reference(session: Session, search: Search) -> None:
    """Write down whom candidates are compared with: the first uniform merge, where the space has one that resolves."""
    recipe = plan.reference(search.space)
    try:
        resolved = resolve(recipe, search.models) if recipe is not None else None
    except HuarizoError:
        resolved = None
    if resolved is not None and recipe is not None and recipe.merge is not None:
        label, why = f"uniform {recipe.merge.method}", "the study's first uniform merge"
        events.append(
            session, search.job.id, REFERENCE, {"recipe_digest": resolved.digest(), "label": label, "reason": why}
        )


def reference_digest(session: ReadSession, search: Search) -> str | None:
    """The recipe of the reference in force; None where that is the first parent and nobody has said so yet."""
    noted = events.of_kind(session, search.job.id, REFERENCE)
    return str(noted[-1].payload["recipe_digest"]) if noted else None


def reference(session: Session, search: Search, every: Sequence[TrialBrief]) -> TrialBrief | None:
    """The trial of the reference. If it cannot be scored, or there is none, the first parent takes its place for good:
    the first of those that are still in their race, or have come through it.

    None before anything was proposed.
    """
    digest = reference_digest(session, search)
    found = [trial for trial in every if trial.recipe_digest == digest]
    for trial in found:
        if trial.origin == PARENT or trial.state is TrialState.SCORED or not trial.state.final:
            return trial
    if digest is not None and not any(trial.optuna_number is not None for trial in every):
        return None
    parent = next(t for t in every if t.origin == PARENT and t.state is not TrialState.STOPPED)
    why = f"{found[0].label} {found[0].state.value}" if found else "no uniform merge was proposed"
    payload = {"recipe_digest": parent.recipe_digest, "label": parent.label, "reason": f"the first parent, as {why}"}
    events.append(session, search.job.id, REFERENCE, payload)
    return parent


def ready(search: Search, every: Sequence[TrialBrief], reference: TrialBrief | None) -> bool:
    """Whether candidates can be heard: the parents' race is over, and whom they are compared with is scored in full."""
    if search.strategy.hears == "accuracy" and not search.strategy.races:
        return True
    racing = [trial for trial in every if trial.origin == PARENT and trial.state is not TrialState.STOPPED]
    return reference is not None and all(trial.scored_items >= search.whole for trial in [*racing, reference])


def listen(
    session: Session, search: Search, every: Sequence[TrialBrief], reference: TrialBrief | None
) -> list[TrialBrief]:
    """Have every result heard that was not yet, and keep what was heard with its trial."""
    return [_listened(session, search, trial, reference) for trial in every]


def _listened(session: Session, search: Search, trial: TrialBrief, reference: TrialBrief | None) -> TrialBrief:
    known = {heard.items for heard in trial.heard}
    sizes = sorted({size for size in search.rungs if size <= trial.scored_items} | {trial.scored_items})
    if trial.state not in _ALIVE or trial.scored_items == 0 or known.issuperset(sizes):
        return trial
    found = results(session, search, trial.recipe_digest, trial.scored_items)
    theirs = None
    if search.strategy.hears == "smoothed":
        assert reference is not None
        theirs = _smoothed_reference(session, search, reference.recipe_digest)
    shares = search.job.request.objective.shares
    new = {size: _heard(found, theirs, size, shares) for size in sizes if size not in known}
    heard = tuple(sorted((*trial.heard, *new.values()), key=lambda score: score.items))
    trials.hear(session, trial.id, heard)
    return replace(trial, heard=heard)


def _heard(found: Results, reference: tuple[Floats, ...] | None, items: int, shares: Sequence[float]) -> HeardScore:
    """The score over the first `items` of every task: plain without a reference."""
    if reference is None:
        score = plain([task[:items].astype(float) for task in found.correct], shares)
    else:
        score = paired([smooth(task[:items]) for task in found.margins], reference, shares)
    return _kept(score, items)


def _kept(score: Heard, items: int) -> HeardScore:
    return HeardScore(items=items, score=score.score, variance=score.variance, n=score.items, tasks=score.tasks)


def _smoothed_reference(session: ReadSession, search: Search, recipe_digest: str) -> tuple[Floats, ...]:
    key = search.job.id, recipe_digest
    if key not in _references:
        while len(_references) >= KEPT:
            del _references[next(iter(_references))]
        found = results(session, search, recipe_digest, search.whole)
        _references[key] = tuple(smooth(task) for task in found.margins)
    return _references[key]


#: References kept smoothed, by job and recipe: one per study that is active.
KEPT = 16
_references: dict[tuple[str, str], tuple[Floats, ...]] = {}
