"""Generators of weights: artifacts that searches name by id or by digest."""

from __future__ import annotations

from sqlalchemy import Text, cast, select

from core.errors import ConflictError, InvalidInputError, MissingGeneratorError
from core.jobs import Opening, SearchJob
from core.recipe.short import Recipe
from core.records import ArtifactRecord, EventRecord, JobRecord
from core.space_spec import GenerationFamily
from core.states import JobState
from store import events, rows
from store.session import ReadSession
from store.tables import artifacts, jobs

#: Kind of the artifact; its `weights_digest` is the generator's digest.
KIND = "generator"
#: Event: how far a training is.
PROGRESS = "training"
#: Events of a search that trains its own generator: it was ordered; it is there, and its family open; it never will be.
PLANNED, READY, FAILED = "generator_planned", "generator_ready", "generator_failed"


def named(s: ReadSession, name: str) -> ArtifactRecord:
    """The generator of an artifact's id or of a digest; of several with one digest the newest.

    Raises:
        MissingGeneratorError: there is none.
    """
    mine = (artifacts.c.kind == KIND) & ((artifacts.c.id == name) | (artifacts.c.weights_digest == name))
    newest = rows.query(artifacts, ArtifactRecord).where(mine).order_by(artifacts.c.created_at.desc()).limit(1)
    row = s.execute(newest).one_or_none()
    if row is None:
        raise MissingGeneratorError(
            f"a generator is named by the id or the digest of its artifact, but {name!r} is none: list the artifacts",
            where="generator",
        )
    return rows.build(ArtifactRecord, row)


def pinned(s: ReadSession, job: SearchJob) -> SearchJob:
    """The search with its generators named by digest, whatever it calls them.

    Raises:
        MissingGeneratorError: there is none of that name.
    """
    if not any(isinstance(family, GenerationFamily) for family in job.space.families):
        return job
    families = [
        family.evolve(generator=named(s, family.generator).weights_digest)
        if isinstance(family, GenerationFamily) and isinstance(family.generator, str)
        else family
        for family in job.space.families
    ]
    return job.evolve(space=job.space.evolve(families=families))


def opening(s: ReadSession, job: JobRecord) -> Opening | None:
    """What a search has got of its own generator; None before that, and in searches without one."""
    found = ready(s, job)
    if found is None:
        return None
    best = found.payload["best"]
    return Opening(str(found.payload["generator"]), None if best is None else Recipe.model_validate(best))


def ready(s: ReadSession, job: JobRecord) -> EventRecord | None:
    """The event with which the family of a search's own generator opened."""
    if job.request.sampled is None:
        return None
    return next(iter(events.of_kind(s, job.id, READY)), None)


def check_search(s: ReadSession, job_id: str) -> None:
    """Check that a job is a search, whose best candidates can be learned from.

    Raises:
        InvalidInputError: it is none, or there is no such job.
    """
    kind = s.execute(select(jobs.c.kind).where(jobs.c.id == job_id)).scalar_one_or_none()
    if kind != "search":
        raise InvalidInputError(
            f"an elite is taken of a search, but {job_id!r} is {kind or 'no job'}: list the jobs", where="elite.job"
        )


def check_unused(s: ReadSession, artifact: ArtifactRecord) -> None:
    """Check that no job under way samples from a generator, nor has trained it.

    Raises:
        ConflictError: one does.
    """
    if artifact.kind != KIND:
        return
    alive = [state.value for state in JobState if not state.final]
    naming = cast(jobs.c.request, Text).contains(str(artifact.weights_digest), autoescape=True)
    using = naming | (jobs.c.id == artifact.job_id)
    user = s.execute(select(jobs.c.id).where(jobs.c.state.in_(alive), using).limit(1)).scalar_one_or_none()
    if user is not None:
        raise ConflictError(
            f"a generator that a job samples from must stay, but {user!r} uses {artifact.id!r}: wait or cancel it",
            where="artifact_id",
        )
