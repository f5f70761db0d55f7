"""The local verb behind `huarizo evaluate`: a checkpoint's scores on whole tasks, without a service.

    python -m workers.runner.evaluate MODEL [--protocol NAME] [--tasks a,b] [--num-fewshot N] [--output FILE] ...

The model is a path, a hub id or a reference (`local:<path>`, `hub:<org>/<name>`), the tasks are any of lm-eval 0.4.3 or
of the folders of HUARIZO_TASK_FOLDERS, their documents those of HUARIZO_DATASETS where that folder has them. Numbers
are those of the harness's own `simple_evaluate` over our reading of the model. Progress and result are JSON lines on
standard output: {"event": "progress" | "done" | "error", ...}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from core.adapters import is_adapter
from core.architectures import architecture_of
from core.checkpoint import read_header, weights_digest
from core.errors import CheckpointError, InvalidInputError, MissingCheckpointError, OutOfMemoryError
from core.protocols import Asked, Evaluation, evaluation_of
from core.settings import Settings
from evaluation.catalog import TaskFolders
from evaluation.lm import HuarizoLM, untold
from evaluation.precision import sample_agreement, widened
from evaluation.units import Unit, load_unit
from evaluation.whole import Ran, run
from workers.places import model_folder, pinned
from workers.recipe_files import find_model
from workers.runner.local import reported, say
from workers.runner.manifest import MANIFEST
from workers.runner.scorecard import plain, report_of
from workers.steps.inspect_model import refuse_non_finite

DTYPES = ("auto", "float32", "bfloat16", "float16")
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Found:
    """A checkpoint that can be evaluated.

    Attributes:
        ref: its pinned reference.
        about: what the report says of it.
    """

    ref: str
    folder: Path
    about: dict[str, Any]


def main() -> int:
    """Evaluate and report; the exit status is 1 after an error."""
    options = _parser().parse_args()
    return reported(lambda: evaluate(options, say))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.runner.evaluate")
    parser.add_argument("model")
    parser.add_argument("--protocol")
    parser.add_argument("--tasks", default="", help="names, separated by commas")
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--limit", type=int, help="only the first documents of each task")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n>")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--batch-tokens", type=int, default=0, help="of one forward pass; 0 finds out")
    parser.add_argument("--check-precision", type=int, help="compare so many documents of each task with float32")
    parser.add_argument("--output", type=Path, help="a JSON file for the whole report")
    parser.add_argument("--log-samples", type=Path, help="a folder for every prompt and answer")
    return parser


def evaluate(options: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """Run what was asked for.

    What costs little and can fail is done first: names, headers, documents; then the weights are read.

    Raises:
        InvalidInputError: tasks, protocol, device or numbers that cannot be.
        HuarizoError: the model or a task cannot be used.
    """
    started = time.monotonic()
    asked = evaluation_of(options.protocol, [name for name in options.tasks.split(",") if name], options.num_fewshot)
    settings = Settings()
    _check(options)
    device = device_of(options.device, settings.threads)
    found = find(options.model, settings)
    units = [_loaded(each, asked, settings, tell, index) for index, each in enumerate(asked.tasks)]
    tell({"event": "progress", "doing": "reading the weights", "done": 0, "total": 1})
    digest = weights_digest(found.folder, visit=refuse_non_finite)
    model = load_model(found.folder, device, options.dtype)
    tokens = options.batch_tokens or settings.batch_tokens or None
    tokenizer = load_tokenizer(found.folder)
    lm = HuarizoLM(model, tokenizer, batch_tokens=tokens)
    ran: dict[str, Ran] = {}
    for index, unit in enumerate(units):
        lm.tell = _teller(tell, unit.name, index, len(units))
        samples = options.log_samples is not None
        ran[unit.name] = run(lm, unit, sampler=asked.protocol.sampler, limit=options.limit, samples=samples)
        if samples:
            _write_samples(options.log_samples, ran[unit.name])
        units[index] = Unit(unit.name, {})  # Its prompts are not needed again.
    report = report_of(asked, ran, {"ref": found.ref, "weights_digest": digest, **found.about}, model, options.limit)
    if options.check_precision and model.dtype != torch.float32:
        fresh = [_loaded(each, asked, settings, tell, index) for index, each in enumerate(asked.tasks)]
        report |= {"precision": _precision(lm, tokenizer, fresh, asked, options.check_precision)}
        report["notes"].append(_told(report["precision"], report["dtype"]))
    report = plain({**report, "seconds": time.monotonic() - started})
    if options.output is not None:
        _write(options.output, report)
    return {**report, "output": None if options.output is None else str(options.output.absolute())}


def _precision(
    lm: HuarizoLM, tokenizer: PreTrainedTokenizerBase, units: list[Unit], asked: Evaluation, limit: int
) -> dict[str, Any]:
    """How many of each unit's first documents come out otherwise than they would in float32."""
    lm.tell = untold
    sampler = asked.protocol.sampler
    half = [run(lm, unit, sampler=sampler, limit=limit, samples=True).found["samples"] for unit in units]
    try:
        wide = HuarizoLM(widened(lm.model), tokenizer)
        exact = [run(wide, unit, sampler=sampler, limit=limit, samples=True).found["samples"] for unit in units]
    except OutOfMemoryError as error:
        return {"unknown": error.message}
    seen = {unit.name: sample_agreement(*both) for unit, *both in zip(units, half, exact, strict=True)}
    items, differing = (sum(each[place] for each in seen.values()) for place in (0, 1))
    return {"items": items, "differing": differing, "tasks": {name: each._asdict() for name, each in seen.items()}}


def _told(precision: dict[str, Any], dtype: str) -> str:
    if "unknown" in precision:
        return f"not compared with float32: {precision['unknown']}"
    return f"in {dtype}, {precision['differing']} of {precision['items']} documents come out otherwise than in float32."


def find(name: str, settings: Settings) -> Found:
    """The model that a name means; only its headers are read.

    Raises:
        CheckpointError: it cannot be used; the code says why.
    """
    ref = find_model(name, (Path.cwd(), *settings.model_roots))
    # A local verb may read what its user can.
    free = settings.model_copy(update={"model_roots": (Path.cwd(), *settings.model_roots, Path("/"))})
    folder = model_folder(ref, free)
    if is_adapter(folder):
        raise CheckpointError(f"{name!r} is an adapter, and only whole models answer: merge it onto its base first")
    header = read_header(folder)
    about = {
        "parameters": sum(info.elements for info in header.tensors),
        "model_type": header.model_type,
        "stored": sorted({info.dtype for info in header.tensors}),
        "made_by_huarizo": (folder / MANIFEST).is_file(),
    }
    return Found(pinned(ref, folder), folder, about)


def device_of(wish: str, threads: int) -> torch.device:
    """The device that is meant, with threads set on a CPU.

    Raises:
        InvalidInputError: there is no such device here.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if wish == "auto" else wish
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(f"a device is auto, cpu, cuda or cuda:<n>, but got {wish!r}: name one") from error
    if device.type not in ("cpu", "cuda") or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise InvalidInputError(f"this machine has no device {wish!r}: use cpu, or another number")
    if device.type == "cpu":
        torch.set_num_threads(threads or os.cpu_count() or 1)
    return device


def load_model(folder: Path, device: torch.device, dtype: str) -> PreTrainedModel:
    """The model in one dtype: `auto` is the stored one on a GPU, and float32 on a CPU, as in jobs.

    Raises:
        CheckpointError: transformers cannot open it, or finds weights missing, left over or of another shape.
        OutOfMemoryError: it does not fit the device.
    """
    wanted = ("float32" if device.type == "cpu" else "auto") if dtype == "auto" else dtype
    try:
        model, said = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if wanted == "auto" else getattr(torch, wanted),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # They are told, with their names, and refused below.
        )
        opened: PreTrainedModel = model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"the model does not fit {str(device)!r}: use a smaller dtype or another device"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, ImportError) as error:
        raise CheckpointError(f"transformers cannot open {folder.name!r} ({error}): check its config.json") from error
    family = architecture_of(str(opened.config.model_type))
    # Buffers that old versions wrote are no weights, here as in jobs.
    said["unexpected_keys"] = [key for key in said["unexpected_keys"] if family.canonical(key) is not None]
    _refuse_misfits(folder.name, said)
    return opened


def _refuse_misfits(name: str, said: dict[str, Any]) -> None:
    """What transformers says of the weights it read; it would fill gaps at random and pass over the rest."""
    rules = {
        "missing_keys": "lacks {}, which would be random",
        "mismatched_keys": "has other shapes for {}, which would be random",
        "unexpected_keys": "also holds {}, which its config.json has no place for",
    }
    for kind, rule in rules.items():
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in said.get(kind) or ())
        if names:
            shown = f"{names[:3]!r}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise CheckpointError(
                f"a model's weights must be those of its configuration, but {name!r} {rule.format(shown)}: save it "
                "anew, or correct its config.json",
                where=names[0],
            )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        MissingCheckpointError: none that can be used.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise MissingCheckpointError(f"{folder.name!r} holds no usable tokenizer ({error}): add its files") from error


def _check(options: argparse.Namespace) -> None:
    for name in ("limit", "num_fewshot", "batch_tokens", "check_precision"):
        value, least = getattr(options, name), 1 if name == "limit" else 0
        if value is not None and value < least:
            raise InvalidInputError(f"--{name.replace('_', '-')} is {least} or more, but got {value!r}: give another")
    folder = None if options.output is None else options.output.absolute().parent
    if folder is not None and not folder.is_dir():
        raise InvalidInputError(f"--output needs an existing folder, but {str(folder)!r} is none: make it")


def _loaded(each: Asked, asked: Evaluation, settings: Settings, tell: Tell, index: int) -> Unit:
    tell({"event": "progress", "doing": f"{each.task}: documents", "done": index, "total": 10 * len(asked.tasks)})
    folders = TaskFolders(datasets=settings.datasets, registered=tuple(settings.task_folders))
    return load_unit(each.task, folders, num_fewshot=each.num_fewshot, sampler=asked.protocol.sampler)


def _teller(tell: Tell, name: str, index: int, count: int) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        place = index + (done / total if total else 1.0)
        tell({"event": "progress", "doing": f"{name}: {done} of {total} requests", "done": place, "total": count})

    return told


def _write(file: Path, value: Any) -> None:
    unfinished = file.with_name(f".{file.name}.partial")
    unfinished.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.rename(file)


def _write_samples(folder: Path, ran: Ran) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task, rows in ran.found["samples"].items():
        text = "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{task.replace('/', '_')}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
