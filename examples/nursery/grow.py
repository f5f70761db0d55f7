"""Growing the whole nursery into one folder: tokenizer, base, three specialists, three benchmarks, manifest.

The manifest is written last and names every file with its hash, so a folder is a nursery if and only if its manifest
holds: a half-written file never counts, and a complete folder is returned at once.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from examples.nursery.corpus import SKILLS, Lessons
from examples.nursery.rescale import rescale_preserving
from examples.nursery.tasks import BENCHMARKS, write_items, write_task_files
from examples.nursery.tokenizer import save_tokenizer, train_tokenizer
from examples.nursery.training import Course, Shape, batches, new_model, reproducible, train
from examples.nursery.world import make_world, purpose_rng

RECIPE_VERSION = 1  # raised whenever other files would be grown from the same plan and seed
MANIFEST = "manifest.json"
PARTS = ("base", *SKILLS, "tasks")
Progress = Callable[[str, float], None]

# The specialists' learning rates differ so that their best merge weights do too.
BASE = Course(steps=720, rate=3e-3, warm_up=40, weight_decay=0.01)
ARC = Course(steps=90, rate=1e-3, warm_up=10)
WINO = Course(steps=120, rate=1.5e-3, warm_up=10)
HELLA = Course(steps=120, rate=6e-4, warm_up=10)


@dataclass(frozen=True)
class GrowthPlan:
    """Every size of a growth."""

    shape: Shape = field(default_factory=Shape)
    base: Course = BASE
    arc: Course = ARC
    wino: Course = WINO
    hella: Course = HELLA
    threads: int = 1  # two gain little on layers this small, and stall each other on a busy machine
    tokenizer_texts: int = 8000
    train_items: int = 400
    search_items: int = 1000
    held_out_items: int = 1000

    @classmethod
    def smoke(cls) -> GrowthPlan:
        """Everything the full plan grows, in seconds: the files are right, the models know next to nothing."""
        course = Course(steps=4, rate=1e-3, warm_up=1, batch=8)
        return cls(
            shape=Shape(vocabulary=320, hidden=32, layers=2, heads=2, mlp=48),
            base=course,
            arc=course,
            wino=course,
            hella=course,
            tokenizer_texts=200,
            train_items=24,
            search_items=32,
            held_out_items=32,
        )

    def course(self, skill: str) -> Course:
        return {"arc": self.arc, "wino": self.wino, "hella": self.hella}[skill]

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": self.train_items, "validation": self.search_items, "test": self.held_out_items}


@dataclass(frozen=True)
class NurseryFamily:
    """Where the grown things lie."""

    folder: Path
    seed: int

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def specialists(self) -> dict[str, Path]:
        """Skill (arc, wino, hella) → the checkpoint that has it."""
        return {skill: self.folder / skill for skill in SKILLS}

    @property
    def tasks(self) -> Path:
        """The folder for lm-eval's ``TaskManager(include_path=...)``."""
        return self.folder / "tasks"

    @property
    def task_names(self) -> dict[str, str]:
        """Skill → the lm-eval task that asks for it."""
        return {skill: BENCHMARKS[skill].name for skill in SKILLS}


def grow(
    folder: Path, *, seed: int = 7, plan: GrowthPlan | None = None, progress: Progress | None = None
) -> NurseryFamily:
    """Grow the family into ``folder``, or return at once if it is complete there.

    ``progress`` is called with a stage's name and the fraction of the whole that is done. A folder that holds another
    plan or seed, or anything incomplete, is grown again; files that are not the nursery's are left alone. Two growths
    into one folder wait for each other.
    """
    folder = folder.resolve()
    plan = plan or GrowthPlan()
    report = progress or (lambda _stage, _done: None)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if not is_complete(folder, seed, plan):
            _grow_into(folder, seed, plan, report)
        write_task_files(folder / "tasks")  # they name absolute paths, and the folder may have been moved
    report("complete", 1.0)
    return NurseryFamily(folder, seed)


def is_complete(folder: Path, seed: int, plan: GrowthPlan) -> bool:
    """Whether ``folder`` holds exactly what this plan and seed grow, file by file."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        hashes: dict[str, str] = manifest["files"]
        return bool(manifest["recipe"] == _recipe(seed, plan)) and all(
            _sha256(folder / name) == digest for name, digest in hashes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _grow_into(folder: Path, seed: int, plan: GrowthPlan, report: Progress) -> None:
    """Grow aside, move the finished parts into place, write the manifest last."""
    (folder / MANIFEST).unlink(missing_ok=True)
    aside = folder / ".growing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    report("texts and tokenizer", 0.0)
    lessons = Lessons.of(make_world(seed))
    _grow_models(aside, lessons, seed, plan, report)
    report("benchmarks", 0.97)
    write_items(aside / "tasks", lessons.world, seed, plan.sizes)
    hashes = {path.relative_to(aside).as_posix(): _sha256(path) for path in sorted(aside.rglob("*")) if path.is_file()}
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
        os.replace(aside / part, folder / part)
    aside.rmdir()
    draft = folder / f"{MANIFEST}.part"
    draft.write_text(json.dumps({"recipe": _recipe(seed, plan), "files": hashes}, indent=2) + "\n")
    os.replace(draft, folder / MANIFEST)


def _grow_models(aside: Path, lessons: Lessons, seed: int, plan: GrowthPlan, report: Progress) -> None:
    """The base, rescaled before anything is tuned from it, then each specialist from a fresh copy of the base."""
    texts = lessons.base_texts(seed, plan.base.texts)
    tokenizer = train_tokenizer(texts[: plan.tokenizer_texts], plan.shape.vocabulary)
    stages = _stages(plan)
    with reproducible(seed, plan.threads):
        base = new_model(plan.shape)
        rows = batches(tokenizer, texts, plan.base.batch, purpose_rng(seed, "batches/base"))
        train(base, plan.base, rows, stages("base", report))
        rescale_preserving(base, torch.Generator().manual_seed(seed))
    _save(base, tokenizer, aside / "base")
    for number, skill in enumerate(SKILLS, start=1):
        course = plan.course(skill)
        texts = lessons.specialist_texts(seed, skill, course.texts)
        with reproducible(seed + number, plan.threads):
            model = copy.deepcopy(base)
            rows = batches(tokenizer, texts, course.batch, purpose_rng(seed, f"batches/{skill}"))
            train(model, course, rows, stages(skill, report))
        _save(model, tokenizer, aside / skill)


def _stages(plan: GrowthPlan) -> Callable[[str, Progress], Callable[[float], None]]:
    """From a training's own fraction to the fraction of the whole, which is nearly all training."""
    steps = {"base": plan.base.steps} | {skill: plan.course(skill).steps for skill in SKILLS}
    total = sum(steps.values())
    names = list(steps)

    def stage(name: str, report: Progress) -> Callable[[float], None]:
        before = sum(steps[earlier] for earlier in names[: names.index(name)])
        label = f"training {name}"
        return lambda done: report(label, 0.02 + 0.95 * (before + done * steps[name]) / total)

    return stage


def _save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """A Hugging Face checkpoint; the two older spellings in config.json are for transformers 4."""
    folder.mkdir()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    weights = folder / "model.safetensors"
    save_file(model.state_dict(), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # the writer makes it private; a worker may run as another user
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config |= {"torch_dtype": "float32", "rope_theta": config["rope_parameters"]["rope_theta"]}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _recipe(seed: int, plan: GrowthPlan) -> dict[str, Any]:
    return {"version": RECIPE_VERSION, "seed": seed, "plan": asdict(plan)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the process ends, however it ends."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
