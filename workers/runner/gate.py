"""The gate before sampled weights are scored: a candidate that is not worth it fails with a code of its own."""

from __future__ import annotations

from dataclasses import asdict, replace

from core.model import Model
from core.recipe import ResolvedRecipe
from core.records import JobRecord, StepRecord
from evaluation.perplexity import perplexity, texts
from merging.generation.validity import check_perplexity, check_sample
from store import events, steps
from workers.heart import Heart
from workers.runner.bench import Bench
from workers.runner.scoring import Candidate, place

#: Event: a sample passed; what was seen of it.
PASSED = "sample_passed"


def admitted(
    bench: Bench, step: StepRecord, heart: Heart, job: JobRecord, recipe: ResolvedRecipe, known: dict[str, Model]
) -> Candidate:
    """The candidate, built and, where its weights are sampled, found worth scoring.

    Raises:
        SampleError, NonFiniteWeightsError: it is not; see `merging.generation.validity`.
    """
    if recipe.generation is None:
        return place(bench, step, heart, job, recipe, known)
    with bench.database.reading() as session:
        passed = {event.payload["recipe"]: event.payload for event in events.of_kind(session, job.id, PASSED)}
    mine = recipe.digest()
    if mine in passed:
        # Another rung of a sample that passed, or its step anew.
        return place(bench, step, heart, job, recipe, known)
    base = _base_perplexity(bench, step, heart, job, recipe, known)
    candidate = place(bench, step, heart, job, recipe, known)
    others = [str(payload["digest"]) for payload in passed.values()]
    seen = check_sample(recipe, candidate.built.tensors, bench.parents(known), known=others)
    assert seen is not None
    ratio = check_perplexity(base, lambda: _perplexity(candidate))
    payload = {"recipe": mine, "trial_id": step.trial_id, **asdict(replace(seen, perplexity=ratio))}
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        events.append(session, job.id, PASSED, payload)
    return candidate


def _base_perplexity(
    bench: Bench, step: StepRecord, heart: Heart, job: JobRecord, recipe: ResolvedRecipe, known: dict[str, Model]
) -> float:
    """Perplexity of what the sample lies around, taken once per base."""
    around = recipe.evolve(generation=None)
    key = (around.digest(), *sorted(job.contents.values()), str(job.request.seed))
    if key not in bench.perplexities:
        bench.perplexities[key] = _perplexity(place(bench, step, heart, job, around, known))
    return bench.perplexities[key]


def _perplexity(candidate: Candidate) -> float:
    """On the prompts of the first search items of every task."""
    prepared = candidate.scorer.prepared.tasks
    read = [
        text
        for spec in candidate.job.request.objective.tasks
        for text in texts(prepared[spec.task], candidate.numbers(spec, "search"))
    ]
    return perplexity(candidate.built.model, read, candidate.bench.device)
