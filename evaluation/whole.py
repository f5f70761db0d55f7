"""A whole evaluation: the harness's own run of a task or a group, and what every number of it says of itself.

The numbers are `lm_eval.simple_evaluate`'s, over `HuarizoLM`. What is added is where they come from: a digest of the
documents and the configuration, one of every prompt, and for each score a fingerprint over all that shapes it. For
multiple-choice tasks that is the fingerprint under which searches keep their outcomes.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lm_eval.evaluator
import numpy as np

from core.errors import HuarizoError, OutOfMemoryError, TaskError
from core.noun import digest_of
from core.protocols import Sampler
from evaluation.catalog import templates_compiled_once, without_progress_bars
from evaluation.documents import Part, content_digest
from evaluation.lm import HuarizoLM
from evaluation.prepare import fingerprint_of, prompts_digest, requests_of
from evaluation.randomness import as_in_the_harness
from evaluation.units import Unit

#: What the harness's task object calls the one way that an answer is taken where a task names no filters.
_NO_FILTER = "none"


@dataclass(frozen=True)
class Score:
    """One number of one task or group.

    Attributes:
        task, num_fewshot, metric: what was measured.
        filter: how the answer was taken from the response, the harness's `none` where there is one way only.
        value, stderr: in the metric's own unit; None where the harness gives no finite number.
        n: documents scored.
        documents: documents there are.
        higher_is_better: None where the harness does not say.
        fingerprint: a sha256 over all that shapes the number besides weights and tokenizer.
        tasks: of a group, how many tasks it is made of; 0 for a task.
    """

    task: str
    num_fewshot: int
    metric: str
    filter: str
    value: float | None
    stderr: float | None
    n: int
    documents: int
    higher_is_better: bool | None
    fingerprint: str
    tasks: int = 0


@dataclass(frozen=True)
class Ran:
    """What one run gave.

    Attributes:
        found: `simple_evaluate`'s results, `samples` among them where they were asked for.
        scores: its numbers, groups first.
        about: of every task, its version, kind, digests and count of documents.
        seconds: of the run.
    """

    found: dict[str, Any]
    scores: tuple[Score, ...]
    about: dict[str, dict[str, Any]]
    seconds: float

    @property
    def items(self) -> int:
        """Documents scored."""
        return sum(each["n"] for each in self.about.values())


def run(
    lm: HuarizoLM, unit: Unit, *, sampler: Sampler = "default", limit: int | None = None, samples: bool = False
) -> Ran:
    """Have the harness evaluate one unit.

    Args:
        lm: the model.
        unit: a task or group, freshly loaded.
        sampler: the protocol's choice of examples, as the unit was loaded with.
        limit: only so many first documents of each task.
        samples: whether to keep every prompt and answer.

    Raises:
        TaskError: the harness could not run the task.
        HuarizoError: what the model's reading raises.
    """
    started = time.monotonic()
    with as_in_the_harness():
        found = _simple_evaluate(lm, unit, limit, samples)
    seconds = time.monotonic() - started
    # Documents that are drawn anew whenever they are asked for are told as those of the prompts.
    with as_in_the_harness(unit.randomness):
        shaping = {name: _shaping(task, lm, sampler, limit) for name, task in unit.tasks.items()}
    about = {name: _about(name, task, shaping[name], found) for name, task in unit.tasks.items()}
    return Ran(found, tuple(_scores(unit, found, shaping)), about, seconds)


def _simple_evaluate(lm: HuarizoLM, unit: Unit, limit: int | None, samples: bool) -> dict[str, Any]:
    try:
        with without_progress_bars(), templates_compiled_once(), _environment_untold():
            found: dict[str, Any] = lm_eval.evaluator.simple_evaluate(
                lm, tasks=[unit.name], task_manager=unit, limit=limit, log_samples=samples, verbosity="ERROR"
            )
    except HuarizoError:
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise OutOfMemoryError(f"{unit.name!r} does not fit the device ({error}): lower --batch-tokens") from error
        # Metrics, filters and templates are the task's own, and may raise anything.
        raise TaskError(
            f"the harness could not evaluate {unit.name!r} ({type(error).__name__}: {error}): correct the task or its "
            "data",
            where=unit.name,
        ) from error
    return found


@contextlib.contextmanager
def _environment_untold() -> Iterator[None]:
    """While this holds, the harness does not describe the machine, which takes it a dozen programs and seconds."""
    stock = lm_eval.evaluator.add_env_info
    lm_eval.evaluator.add_env_info = lambda storage: None
    try:
        yield
    finally:
        lm_eval.evaluator.add_env_info = stock


def _shaping(task: Any, lm: HuarizoLM, sampler: Sampler, limit: int | None) -> dict[str, Any]:
    """What the fingerprints of a task's scores have in common."""
    shots = int(task.get_config("num_fewshot") or 0)
    shaping = {
        "content": content_digest((Part(None, task, tuple(task.eval_docs)),)),
        "prompts": prompts_digest(requests_of(task)),
        "num_fewshot": shots,
        "add_bos": lm.encoder.add_bos,
        "max_length": lm.encoder.max_length,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": lm.model.device.type,
    }
    if shots and sampler != "default":
        shaping["sampler"] = sampler
    if task.OUTPUT_TYPE != "multiple_choice":
        shaping |= {"output_type": task.OUTPUT_TYPE, "repeats": task.config.repeats}
    if task.OUTPUT_TYPE == "generate_until":
        shaping["generated_together"] = lm.generated_together
    if limit is not None and limit < len(task.eval_docs):
        shaping["limit"] = limit
    return shaping


def _about(name: str, task: Any, shaping: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": task.VERSION,
        "output_type": task.OUTPUT_TYPE,
        "num_fewshot": shaping["num_fewshot"],
        "content_digest": shaping["content"],
        "prompts_digest": shaping["prompts"],
        "n": int(found["n-samples"][name]["effective"]),
        "documents": int(found["n-samples"][name]["original"]),
    }


def _scores(unit: Unit, found: dict[str, Any], shaping: dict[str, dict[str, Any]]) -> Iterator[Score]:
    names = [*found.get("groups", {}), *unit.tasks]
    for name in names:
        members = _members(name, found, unit)
        for key, value in found["results"].get(name, {}).items():
            metric, comma, way = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            prints = {task: _fingerprint(shaping[task], metric, way) for task in members}
            sizes = [found["n-samples"][task] for task in members]
            better = found["higher_is_better"].get(name, {})
            yield Score(
                task=name,
                num_fewshot=shaping[members[0]]["num_fewshot"],
                metric=metric,
                filter=way,
                value=_number(value),
                stderr=_number(found["results"][name].get(f"{metric}_stderr,{way}")),
                n=sum(int(size["effective"]) for size in sizes),
                documents=sum(int(size["original"]) for size in sizes),
                higher_is_better=better.get(metric) if isinstance(better, dict) else None,
                fingerprint=prints[name] if name in prints else digest_of({"group": name, "tasks": prints}),
                tasks=0 if name in unit.tasks else len(members),
            )


def _members(name: str, found: dict[str, Any], unit: Unit) -> list[str]:
    """The tasks that a name is made of: itself, or those of a group and of the groups in it, sorted."""
    if name in unit.tasks:
        return [name]
    inner = found["group_subtasks"].get(name, [])
    return sorted({task for each in inner for task in _members(each, found, unit)})


def _fingerprint(shaping: dict[str, Any], metric: str, way: str) -> str:
    return fingerprint_of(**shaping, metric=metric, **({} if way == _NO_FILTER else {"filter": way}))


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float | np.integer | np.floating) or not math.isfinite(value):
        return None
    return float(value)
