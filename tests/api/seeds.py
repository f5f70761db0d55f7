"""Rows as a running service would leave them: registered models, jobs with scored trials, an artifact on disk."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.jobs import SearchJob
from core.model import Header, Model, TensorInfo
from core.recipe import Recipe, identity, resolve
from core.records import ArtifactRecord, Device, Failure, JobRecord, Score, TrialRecord
from core.states import JobState, TrialState
from core.tasks import TaskContent
from store import artifacts, jobs, models, tasks, trials
from store.session import Database, Session

PARENTS = ("base", "maths", "code")
TASKS = ("arc_easy", "winogrande")


def header(*, layers: int = 8, width: int = 32, vocab: int = 64) -> Header:
    """A small llama's header."""
    shapes = {
        "model.embed_tokens.weight": (vocab, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (vocab, width),
    }
    for index in range(layers):
        shapes[f"model.layers.{index}.self_attn.q_proj.weight"] = (width, width)
        shapes[f"model.layers.{index}.mlp.up_proj.weight"] = (2 * width, width)
    tensors = tuple(TensorInfo(name=name, dtype="BF16", shape=shapes[name]) for name in sorted(shapes))
    return Header(
        model_type="llama", config="{}", layers=layers, vocab_size=vocab, tokenizer_files="files", tensors=tensors
    )


def digest(text: str) -> str:
    """A stand-in for the digest of a thing's bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def ready_model(s: Session, name: str, **shape: int) -> Model:
    """A registered, inspected model."""
    record = models.register(s, name, f"local:nursery/{name}")
    record = models.mark_ready(s, record.id, header(**shape), digest(name))
    assert record.header is not None
    return Model(name=name, ref=record.ref, weights_digest=digest(name), header=record.header)


def body(**changes: Any) -> dict[str, Any]:
    """A valid job over the ready models."""
    return {
        "name": "maths × code",
        "models": [{"name": name, "ref": name} for name in PARENTS],
        "space": {
            "families": [
                {"family": "merge", "methods": ["linear", "slerp", "ties"], "base": "base", "layer_groups": 2},
                {"family": "layout", "presets": ["dus"], "sources": ["maths", "code"]},
            ]
        },
        "objective": {"tasks": [{"task": name} for name in TASKS]},
        "budget": {"trials": 40, "item_evaluations": 60000, "seconds": 3600},
        "seed": 7,
        **changes,
    }


def scores(value: float, n: int = 200) -> tuple[Score, ...]:
    """A score on every task, a little apart."""
    return tuple(
        Score(task=name, metric="acc", value=value + shift, stderr=(value * (1 - value) / n) ** 0.5, n=n)
        for name, shift in zip(TASKS, (0.02, -0.02), strict=True)
    )


def running_job(s: Session, **changes: Any) -> tuple[JobRecord, dict[str, Model]]:
    """A running job over three ready parents, which are scored."""
    known = {name: ready_model(s, name) for name in PARENTS}
    job, _ = jobs.create(s, SearchJob.model_validate(body(**changes)))
    jobs.move(s, job.id, JobState.PREPARING)
    job = jobs.move(s, job.id, JobState.RUNNING)
    for name in TASKS:
        tasks.put(s, content(name))
    jobs.pin_contents(s, job.id, {name: digest(name) for name in TASKS})
    for name, value in zip(PARENTS, (0.512, 0.561, 0.548), strict=True):
        recipe = identity(name, save_dtype="bfloat16")
        scored(s, job, recipe, known, value, origin="parent", label=name)
    return jobs.get(s, job.id), known


def content(name: str) -> TaskContent:
    """A task of 400 documents, half of them on the search side."""
    return TaskContent(
        name=name,
        version="1",
        content_digest=digest(name),
        documents=400,
        search="ff" * 25 + "00" * 25,
        metrics=("acc",),
        has_fewshot=True,
    )


def trial(s: Session, job: JobRecord, recipe: Recipe, known: Mapping[str, Model], **fields: Any) -> TrialRecord:
    """A queued trial."""
    given = {"origin": "proposed", "label": "", "values": {}, "target_items": 200, "device": Device.CPU, **fields}
    return trials.create(s, job.id, recipe=recipe, resolved=resolve(recipe, known), **given)


def scored(
    s: Session,
    job: JobRecord,
    recipe: Recipe,
    known: Mapping[str, Model],
    value: float,
    *,
    items: int = 200,
    final: bool = True,
    **fields: Any,
) -> TrialRecord:
    """A trial that was scored on `items` items per task."""
    made = trial(s, job, recipe, known, **fields)
    trials.move(s, made.id, TrialState.RUNNING)
    done = scores(value, items)
    made = trials.record(
        s, made.id, scored_items=items, scores=done, macro=sum(x.value for x in done) / 2, seconds_added=3.4
    )
    jobs.count(s, job.id, items=items * len(TASKS))
    if final:
        made = trials.move(s, made.id, TrialState.SCORED if items >= 200 else TrialState.STOPPED)
    return made


def linear(maths: float, code: float) -> Recipe:
    """A weighted mean of the two fine-tunes, its weights changing over the stack."""
    params = {"weight": {"maths": [maths, code], "code": [code, maths]}}
    return Recipe.model_validate(
        {
            "sources": [{"name": "maths", "model": "maths"}, {"name": "code", "model": "code"}],
            "merge": {"method": "linear", "params": params},
        }
    )


def slerp(t: float) -> Recipe:
    """Between the two fine-tunes."""
    return Recipe.model_validate(
        {
            "sources": [{"name": "maths", "model": "maths"}, {"name": "code", "model": "code"}],
            "merge": {"method": "slerp", "params": {"t": t}},
        }
    )


def ties(density: float) -> Recipe:
    """Both task vectors over the base."""
    return Recipe.model_validate(
        {
            "sources": [{"name": name, "model": name} for name in PARENTS],
            "merge": {"method": "ties", "base": "base", "params": {"density": density, "weight": 0.5}},
        }
    )


def dus(source: str, m: int) -> Recipe:
    """A deeper stack of one fine-tune."""
    return Recipe.model_validate(
        {
            "sources": [{"name": source, "model": source}],
            "layout": {"preset": "dus", "source": source, "params": {"m": m}},
        }
    )


def rich_job(s: Session, count: int = 30, **changes: Any) -> JobRecord:
    """A running job with many candidates of every kind and state."""
    job, known = running_job(s, **changes)
    draw = random.Random(7)
    for number in range(count):
        recipe = draw.choice(
            [linear(round(draw.random(), 2) + 0.1, round(draw.random(), 2) + 0.1), slerp(round(draw.random(), 2)),
             ties(round(0.2 + draw.random() * 0.7, 2)), dus(draw.choice(PARENTS[1:]), draw.randint(1, 3))]
        )  # fmt: skip
        value = 0.50 + 0.004 * min(number, 20) + draw.gauss(0, 0.02)
        items = 200 if draw.random() < 0.6 else 50
        label = "uniform " + recipe.merge.method if number < 3 and recipe.merge else ""
        if number % 13 == 9:
            made = trial(s, job, recipe, known)
            trials.fail(s, made.id, Failure(code="non_finite_weights", message=OVERFLOW, where="lm_head.weight"))
        else:
            scored(s, job, recipe, known, value, items=items, label=label)
    scored(s, job, slerp(0.41), known, 0.57, items=50, final=False)
    trial(s, job, slerp(0.44), known)
    return jobs.get(s, job.id)


OVERFLOW = "tensor 'lm_head.weight' holds 3 infinite elements: lower the weights"


def verdict(winner: TrialRecord, reference: TrialRecord, kind: str = "gain") -> dict[str, Any]:
    """A verdict as the control worker writes it."""

    def who(trial: TrialRecord, heldout: float) -> dict[str, Any]:
        return {
            "trial_id": trial.id,
            "number": trial.number,
            "label": trial.label,
            "macro_search": trial.macro,
            "macro_heldout": heldout,
        }

    points = {"gain": 3.1, "no gain": 0.8, "worse": -2.4}[kind]
    return {
        "verdict": kind,
        "winner": who(winner, 0.571),
        "reference": who(reference, 0.54),
        "points": points,
        "low": points - 2.2,
        "high": points + 2.2,
        "p": {"gain": 0.0031, "no gain": 0.24, "worse": 0.98}[kind],
        "alpha": 0.025,
        "tasks": [
            {
                "task": name,
                "metric": "acc",
                "winner": {"value": 0.57, "stderr": 0.018, "n": 200},
                "reference": {"value": 0.54, "stderr": 0.018, "n": 200},
                "points": points,
                "mcnemar_p": 0.012,
                "n": 200,
            }
            for name in TASKS
        ],
        "tested": [],
        "heldout_reads": 4,
        "claimed": {"points": 56.4, "sd": 0.6, "by": "posterior mean"},
        "floors": [],
        "below_floor": [],
        "contamination": [{"label": reference.label, "search": 0.55, "heldout": 0.54, "gap": 1.0, "stderr": 1.4}],
    }


def best_and_reference(s: Session, job_id: str) -> tuple[TrialRecord, TrialRecord]:
    """The best candidate and the best parent."""
    every = [t for t in trials.of_job(s, job_id) if t.macro is not None and t.scored_items == 200]

    def best(found: Sequence[TrialRecord]) -> TrialRecord:
        return max(found, key=lambda t: t.macro or 0.0)

    parents = [t for t in every if t.origin == "parent"]
    return best([t for t in every if t.origin != "parent"]), best(parents)


def finished_job(s: Session, root: Path, kind: str = "gain", **changes: Any) -> JobRecord:
    """A succeeded job with verdict and exported checkpoint."""
    job = rich_job(s, **changes)
    winner, reference = best_and_reference(s, job.id)
    jobs.move(s, job.id, JobState.CONFIRMING)
    trials.record_heldout(s, winner.id, scores(0.571), 0.571)
    trials.record_heldout(s, reference.id, scores(0.54), 0.54)
    jobs.set_verdict(s, job.id, verdict(winner, reference, kind))
    jobs.move(s, job.id, JobState.EXPORTING)
    checkpoint(s, root, job_id=job.id, trial_id=winner.id)
    return jobs.move(s, job.id, JobState.SUCCEEDED)


FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": bytes(range(256)) * 2000,
    "README.md": b"# x\n",
}


def checkpoint(s: Session, root: Path, *, job_id: str | None = None, trial_id: str | None = None) -> ArtifactRecord:
    """An artifact with files on disk."""
    folder = root / f"checkpoint_{digest(str(trial_id))[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        entries.append({"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    return artifacts.create(
        s,
        job_id=job_id,
        trial_id=trial_id,
        kind="checkpoint",
        path=folder.name,
        files=entries,
        bytes=sum(len(data) for data in FILES.values()),
        weights_digest=digest("weights"),
    )


def seeded(database: Database, root: Path) -> JobRecord:
    """One finished job, committed."""
    with database.transaction() as s:
        return finished_job(s, root, count=10)
