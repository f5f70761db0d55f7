"""Canonical documents of a task: their order, the side each falls on, and the digest of the content."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import TaskError
from core.protocols import Sampler
from core.tasks import Side, normalise, side_of
from evaluation.catalog import FileTask, TaskFolders, load_task, split_names
from evaluation.sources import code_of

#: Configuration that says where documents lie or how a run is set up, not what is asked and how it is judged.
_NOT_CONTENT = frozenset(
    {
        "dataset_path",
        "dataset_name",
        "dataset_kwargs",
        "doc_to_decontamination_query",
        "generation_kwargs",
        "group",
        "group_alias",
        "metadata",
        "num_fewshot",
        "should_decontaminate",
        "task_alias",
    }
)


@dataclass(frozen=True)
class Part:
    """The documents of one split, in file order, with a task object that evaluates on exactly them.

    `side` is None where the split is to be halved by the documents' text.
    """

    side: Side | None
    task: FileTask
    documents: tuple[Mapping[str, Any], ...]


def canonical_parts(
    name: str, folders: TaskFolders, *, num_fewshot: int = 0, sampler: Sampler = "default"
) -> tuple[Part, ...]:
    """The splits whose documents, one after the other, are numbered from 0.

    One part (the stock evaluation split) by default; two, search first, where the task's metadata names its splits.

    Raises:
        UnknownTaskError, TaskError: as `load_task`; TaskError also where a split is empty.
    """
    task = load_task(name, folders, num_fewshot=num_fewshot, sampler=sampler)
    if not split_names(task):
        return (_part(None, task),)
    sides: tuple[Side, Side] = ("search", "heldout")
    return tuple(
        _part(side, load_task(name, folders, num_fewshot=num_fewshot, split=side, sampler=sampler)) for side in sides
    )


def sides(parts: Sequence[Part]) -> tuple[Side, ...]:
    """The side of every canonical document, in canonical order."""
    return tuple(part.side or side_of(side_text(part.task, doc)) for part in parts for doc in part.documents)


def side_text(task: FileTask, document: Mapping[str, Any]) -> str:
    """The text whose hash halves the default split: what documents that give each other away have in common.

    - Winogrande columns: the two options in sorted order. Twins differ in one trigger word and may swap their options,
      but always share the pair, so they meet on one side wherever the word stands (as do all sentences about one pair).
    - HellaSwag columns: the context. Repeated contexts meet on one side whatever their endings are.
    - a `question` column (ARC): the question.
    - anything else: the prompt without examples (`doc_to_text`), or the sorted choices where these are the prompts.
    """
    if {"sentence", "option1", "option2"} <= document.keys():
        return " | ".join(sorted(normalise(str(document[key])) for key in ("option1", "option2")))
    if {"ctx_a", "ctx_b", "endings"} <= document.keys():
        return f"{document['ctx_a']} {document['ctx_b']}"
    if isinstance(document.get("question"), str):
        return str(document["question"])
    if task.multiple_input:
        return " | ".join(sorted(map(str, task.doc_to_choice(document))))
    return str(task.doc_to_text(document))


def content_digest(parts: Sequence[Part]) -> str:
    """The sha256 over every canonical document, the configuration that shapes prompts and metrics, and the version.

    Where the files lie, how many examples are drawn and the process's hash seed do not matter.
    """
    task = parts[0].task
    hashed = hashlib.sha256(_line({"version": str(task.VERSION), "config": _prompt_config(task)}))
    for part in parts:
        hashed.update(_line({"side": part.side, "documents": len(part.documents)}))
        for document in part.documents:
            hashed.update(_line(document))
    return hashed.hexdigest()


def examples_digest(parts: Sequence[Part]) -> str:
    """The sha256 over every document that few-shot examples may be drawn from."""
    hashed = hashlib.sha256()
    for document in parts[0].task.sampler.docs:
        hashed.update(_line(document))
    return hashed.hexdigest()


def _part(side: Side | None, task: FileTask) -> Part:
    documents = tuple(task.task_docs)
    if not documents:
        raise TaskError(f"the evaluation split of task {task.config.task!r} is empty: give it documents")
    return Part(side, task, documents)


def _prompt_config(task: FileTask) -> dict[str, Any]:
    return {key: _plain(value) for key, value in vars(task.config).items() if key not in _NOT_CONTENT}


def _plain(value: Any) -> Any:
    """A JSON form that is equal in every process: functions by their source text, never by their address.

    Of functions that no installed package has, the text of all code they need: a gold may come of it.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, functools.partial):
        return ["partial", _plain(value.func), _plain(value.args), _plain(value.keywords)]
    if not callable(value):
        return value
    code = code_of(value)
    return _source(value) if code is None else [_source(value), code]


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return f"{function.__module__}.{function.__qualname__}"


def _line(value: Any) -> bytes:
    # Documents may hold dates or NaN, which the digests of nouns refuse; `str` of a date is the same everywhere.
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")


def evenly(items: Sequence[Any], count: int) -> Iterable[Any]:
    """At most `count` items, spread evenly over all."""
    step = max(1, len(items) // count)
    return items[::step][:count]
