"""The nursery's three benchmarks, in the field names and with the prompt forms of ARC, Winogrande and HellaSwag.

The items are written as parquet, the tasks as YAML in lm-eval's own format. The stock tasks' Python preprocessing is
said in Jinja, so that the folder holds data only; on these items both give the same strings.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from core.errors import InvalidInputError
from examples.nursery.forms import Blame, Breeding, Craft, blames, breedings, crafts
from examples.nursery.world import World, purpose_rng

SPLITS = ("train", "validation", "test")
LABELS = ("A", "B", "C", "D")
Item = dict[str, Any]
Point = TypeVar("Point")

_STRING = pa.string()
_STRINGS = pa.list_(_STRING)


def arc_item(form: Breeding, world: World, number: str, rng: random.Random) -> Item:
    """An item with ARC's fields; the wrong choices are the other customs' answers."""
    customs = rng.sample(range(form.customs), form.customs)
    return {
        "id": f"NURSERY_{number}",
        "question": form.question(),
        "choices": {"text": [form.answer(world, custom) for custom in customs], "label": list(LABELS)},
        "answerKey": LABELS[customs.index(0)],
    }


def wino_item(form: Blame, rng: random.Random) -> Item:
    """An item with Winogrande's fields; ``answer`` is ``"1"`` or ``"2"``."""
    customs = rng.sample(range(form.customs), form.customs)
    options = [form.answer(custom) for custom in customs]
    return {
        "sentence": form.sentence(),
        "option1": options[0],
        "option2": options[1],
        "answer": str(customs.index(0) + 1),
    }


def hella_item(form: Craft, split: str, ind: int, rng: random.Random) -> Item:
    """An item with HellaSwag's fields; as there, ``ctx_b`` is the begun last sentence and ``label`` a string."""
    customs = rng.sample(range(form.customs), form.customs)
    ctx_b = f"next {form.pronoun}"
    return {
        "ind": ind,
        "activity_label": form.label,
        "ctx_a": form.shown(),
        "ctx_b": ctx_b,
        "ctx": f"{form.shown()} {ctx_b}",
        "endings": [form.ending(custom) for custom in customs],
        "source_id": f"nursery~{split}~{ind}",
        "split": split,
        "split_type": "indomain",
        "label": str(customs.index(0)),
    }


def arc_items(world: World, seed: int, split: str, count: int) -> list[Item]:
    """``count`` distinct questions of one split."""
    rng = purpose_rng(seed, f"items/arc/{split}")
    forms = _sample(breedings(world, split), count, rng)
    return [arc_item(form, world, f"{split}_{index}", rng) for index, form in enumerate(forms)]


def wino_items(world: World, seed: int, split: str, count: int) -> list[Item]:
    """``count`` distinct sentences of one split; the rule is the same in every world."""
    rng = purpose_rng(seed, f"items/wino/{split}")
    return [wino_item(form, rng) for form in _sample(blames(split), count, rng)]


def hella_items(world: World, seed: int, split: str, count: int) -> list[Item]:
    """``count`` distinct stories of one split; the rule is the same in every world."""
    rng = purpose_rng(seed, f"items/hella/{split}")
    forms = _sample(crafts(split), count, rng)
    return [hella_item(form, split, index, rng) for index, form in enumerate(forms)]


def _sample(forms: Sequence[Point], count: int, rng: random.Random) -> list[Point]:
    if count > len(forms):
        raise InvalidInputError(
            f"a split has {len(forms)!r} distinct items, but {count!r} were asked for: ask for fewer"
        )
    return rng.sample(forms, count)


@dataclass(frozen=True)
class Benchmark:
    """One task: its name, where its items come from, their parquet schema and its prompt form."""

    name: str
    items: Callable[[World, int, str, int], list[Item]]
    schema: pa.Schema
    prompts: dict[str, str]
    metrics: tuple[str, ...]


BENCHMARKS = {
    "arc": Benchmark(
        "nursery_arc",
        arc_items,
        pa.schema(
            {
                "id": _STRING,
                "question": _STRING,
                "choices": pa.struct({"text": _STRINGS, "label": _STRINGS}),
                "answerKey": _STRING,
            }
        ),
        {
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{choices.label.index(answerKey)}}",
            "doc_to_choice": "{{choices.text}}",
        },
        ("acc", "acc_norm"),
    ),
    "wino": Benchmark(
        "nursery_winogrande",
        wino_items,
        pa.schema({"sentence": _STRING, "option1": _STRING, "option2": _STRING, "answer": _STRING}),
        {  # as in the stock task, the choices are the contexts and the target is their common continuation
            "doc_to_text": "{{answer | int - 1}}",
            "doc_to_target": "{{sentence.split('_')[1].strip()}}",
            "doc_to_choice": "{{[sentence.split('_')[0] ~ option1, sentence.split('_')[0] ~ option2]}}",
        },
        ("acc",),
    ),
    "hella": Benchmark(
        "nursery_hellaswag",
        hella_items,
        pa.schema(
            {
                "ind": pa.int32(),
                "activity_label": _STRING,
                "ctx_a": _STRING,
                "ctx_b": _STRING,
                "ctx": _STRING,
                "endings": _STRINGS,
                "source_id": _STRING,
                "split": _STRING,
                "split_type": _STRING,
                "label": _STRING,
            }
        ),
        {
            "doc_to_text": "{{activity_label}}: {{ctx_a}} {{ctx_b.capitalize()}}",
            "doc_to_target": "{{label}}",
            "doc_to_choice": "{{endings}}",
        },
        ("acc", "acc_norm"),
    ),
}


def write_items(folder: Path, world: World, seed: int, sizes: dict[str, int]) -> None:
    """Write ``<folder>/<task name>/<split>.parquet`` for every task and split; ``sizes`` maps split → items."""
    for benchmark in BENCHMARKS.values():
        place = folder / benchmark.name
        place.mkdir(parents=True)
        for split in SPLITS:
            rows = benchmark.items(world, seed, split, sizes[split])
            pq.write_table(pa.Table.from_pylist(rows, schema=benchmark.schema), place / f"{split}.parquet")


def write_task_files(folder: Path) -> None:
    """Write ``<folder>/<task name>.yaml``, each naming its items by absolute path; an equal file is left alone."""
    for benchmark in BENCHMARKS.values():
        path = folder / f"{benchmark.name}.yaml"
        text = task_yaml(benchmark, folder.resolve() / benchmark.name)
        if not path.exists() or path.read_text() != text:
            draft = path.with_suffix(".yaml.part")
            draft.write_text(text)
            os.replace(draft, path)


def task_yaml(benchmark: Benchmark, data: Path) -> str:
    """The task in lm-eval's format, over the parquet files in ``data``."""
    config = {
        "task": benchmark.name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {split: str(data / f"{split}.parquet") for split in SPLITS}},
        "output_type": "multiple_choice",
        **{f"{use}_split": split for use, split in zip(("training", "validation", "test"), SPLITS, strict=True)},
        **benchmark.prompts,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in benchmark.metrics
        ],
        "metadata": {"version": 1.0, "search_split": "validation", "heldout_split": "test"},
    }
    text: str = yaml.safe_dump(config, sort_keys=False, width=200)
    return text
