"""How many of the outcomes that a search scores first are stored already, before the search is posted."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import HuarizoError
from core.jobs import SearchJob
from core.model import Model
from core.objective import TaskSpec
from core.recipe import Recipe, identity, resolve
from core.records import JobRecord
from store import jobs, outcomes, tasks
from store.session import ReadSession

#: Jobs that are looked at for the scoring fingerprints of tasks, the newest first.
LOOKED_AT = 50


def reused_items(s: ReadSession, job: SearchJob, known: Mapping[str, Model]) -> int:
    """Stored outcomes on search items of the parents and of the first uniform merge.

    Which fingerprint a job's scores will have, its first runner decides; it is taken to be that of the newest job that
    scored the task in the same way, its documents being what they were. Other candidates are not looked for.

    Args:
        s: the session.
        job: the job.
        known: its parents that are registered, by the names that it uses.
    """
    if any(model.name not in known for model in job.models):
        return 0
    digests = [resolve(recipe, known).digest() for recipe in _first(job, known)]
    former = jobs.page(s, LOOKED_AT).items
    return sum(_stored(s, digests, job, spec, former) for spec in job.objective.tasks)


def _first(job: SearchJob, known: Mapping[str, Model]) -> list[Recipe]:
    """What a search scores in full before anything else."""
    found = [identity(model.name, save_dtype=job.export.save_dtype) for model in job.models]
    try:
        space = job.search_space(min(model.header.layers for model in known.values()))
        return [*found, *list(space.uniform())[:1]]
    except HuarizoError:  # What is wrong with the space the submission says.
        return found


def _stored(s: ReadSession, digests: list[str], job: SearchJob, spec: TaskSpec, former: tuple[JobRecord, ...]) -> int:
    """Outcomes of these candidates on a task's search items."""
    like = next((one for one in former if _scored_alike(one, job, spec)), None)
    content = tasks.latest(s, spec.task)
    if like is None or content is None or like.contents.get(spec.task) != content.content_digest:
        return 0
    wanted, fingerprint = set(content.side("search")), like.fingerprints[spec.task]
    have = outcomes.load_many(s, [(digest, fingerprint) for digest in digests])
    return sum(len(wanted.intersection(found.numbers)) for found in have.values())


def _scored_alike(former: JobRecord, job: SearchJob, spec: TaskSpec) -> bool:
    if former.training is not None or spec.task not in former.fingerprints:
        return False
    theirs = former.request
    same = theirs.objective.protocol == job.objective.protocol and theirs.export.save_dtype == job.export.save_dtype
    return same and any(
        (one.task, one.metric_name, one.num_fewshot) == (spec.task, spec.metric_name, spec.num_fewshot)
        for one in theirs.objective.tasks
    )
