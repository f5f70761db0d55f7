"""What is common to all candidates, made once: prompts, tokens, tries and answer rules of every canonical document."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from core.checkpoint import tokenizer_files
from core.errors import MissingCheckpointError, TaskError
from core.noun import digest_of
from core.objective import TaskSpec
from core.protocols import Sampler
from core.tasks import TaskContent
from evaluation.answers import AnswerRule, answer_rule, asks_twice, check_metric
from evaluation.cache import PlanCache, Plans
from evaluation.catalog import (
    FEWSHOT_SEED,
    FileTask,
    TaskFolders,
    code_digest,
    free_unused,
    templates_compiled_once,
    without_progress_bars,
)
from evaluation.documents import Part, canonical_parts, examples_digest
from evaluation.encoding import Encoder, default_max_length, insists_on_bos, with_defaults
from evaluation.inspect import describe
from evaluation.randomness import as_in_the_harness
from evaluation.trees import TokenTree, grow

#: Libraries whose versions can change a prompt, a token or a score.
FINGERPRINTED = ("lm_eval", "transformers", "tokenizers", "torch", "datasets")

#: What can change a prompt or a rule in the cache besides: the fingerprint has the prompts themselves.
_CACHED_UNDER = ("jinja2", "numpy", "PyYAML")

#: Documents encoded in one call of the tokenizer.
_ENCODED_TOGETHER = 16


@dataclass(frozen=True)
class Document:
    """One canonical document, ready to be scored: the trie of its requests and the rule that judges it."""

    tree: TokenTree
    rule: AnswerRule


@dataclass(frozen=True)
class PreparedTask:
    """A task made ready for one tokenizer.

    Attributes:
        content: what `inspect_task` says about it.
        spec: metric and shots in force.
        documents: by canonical number.
        prompts_digest: sha256 over every (context, continuation) in canonical order.
        add_bos, max_length: how prompts were encoded.
        largest_token: the highest token id, which the model's vocabulary must hold.
        sampler: how examples were chosen; `default` where there are none.
    """

    content: TaskContent
    spec: TaskSpec
    documents: tuple[Document, ...]
    prompts_digest: str
    add_bos: bool
    max_length: int
    largest_token: int
    sampler: Sampler = "default"

    def fingerprint(self, dtype: str, device_kind: str) -> str:
        """The sha256 over all that shapes an outcome besides weights and tokenizer, which the recipe's digest covers.

        Args:
            dtype: the forward pass's, such as "float32".
            device_kind: "cpu" or "cuda".
        """
        return fingerprint_of(
            content=self.content.content_digest,
            prompts=self.prompts_digest,
            metric=self.spec.metric_name,
            num_fewshot=self.spec.num_fewshot,
            add_bos=self.add_bos,
            max_length=self.max_length,
            dtype=dtype,
            device=device_kind,
            **({} if self.sampler == "default" else {"sampler": self.sampler}),
        )


def fingerprint_of(**shaping: Any) -> str:
    """The sha256 over what shapes a score, with the seed of the examples and the libraries' versions."""
    versions = {name: importlib.metadata.version(name) for name in FINGERPRINTED}
    return digest_of({**shaping, "fewshot_seed": FEWSHOT_SEED, "versions": versions})


@dataclass(frozen=True)
class Prepared:
    """Every task of an objective, by name."""

    tasks: dict[str, PreparedTask]


@dataclass(frozen=True)
class _Kept:
    """The cache, and what identifies the tokenizer in it."""

    cache: PlanCache
    identity: dict[str, Any]

    def key(
        self,
        spec: TaskSpec,
        content: TaskContent,
        parts: Sequence[Part],
        encoder: Encoder,
        sampler: Sampler,
        folders: TaskFolders,
    ) -> dict[str, Any]:
        """All that trees and rules depend on."""
        return {
            **self.identity,
            "content": content.content_digest,
            "code": code_digest(parts[0].task, folders),
            "metric": spec.metric_name,
            "num_fewshot": spec.num_fewshot,
            "examples": examples_digest(parts) if spec.num_fewshot else None,
            "sampler": sampler,
            "fewshot_seed": FEWSHOT_SEED,
            "add_bos": encoder.add_bos,
            "max_length": encoder.max_length,
            "versions": {name: importlib.metadata.version(name) for name in (*FINGERPRINTED, *_CACHED_UNDER)},
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }


def prepare(
    specs: Sequence[TaskSpec],
    tokenizer_folder: Path,
    folders: TaskFolders,
    *,
    max_length: int | None,
    add_bos: bool = False,
    sampler: Sampler = "default",
    cache: PlanCache | None = None,
) -> Prepared:
    """Build every request of every task and encode it.

    Args:
        specs: tasks with metric and shots, each task once.
        tokenizer_folder: a model's or tokenizer's folder.
        folders: where tasks and documents are.
        max_length: tokens the model may read; None takes what lm-eval would: the configuration's, or what a model of
            its type has by default, else the tokenizer's, else 2048.
        add_bos: whether the tokenizer adds its special tokens; Gemma's does in any case, as in lm-eval.
        sampler: how few-shot examples are chosen (the protocol's).
        cache: where what was built for an earlier runner may be found.

    Raises:
        UnknownTaskError: no such task.
        TaskError: documents, metric, examples or tokens do not allow scoring.
        MissingCheckpointError: the folder holds no usable tokenizer.
    """
    tokenizer = _tokenizer(tokenizer_folder)
    config = _model_config(tokenizer_folder)
    length = max_length or default_max_length(with_defaults(config), tokenizer)
    encoder = Encoder(tokenizer, length, add_bos=add_bos or insists_on_bos(config))
    files = tokenizer_files(tokenizer_folder)
    # Without a digest of the tokenizer nothing may be kept; the type of the model decides which class reads its files.
    identity = None if files is None or cache is None else {"tokenizer": files, "model_type": config.get("model_type")}
    kept = _Kept(PlanCache(None) if cache is None or identity is None else cache, identity or {})
    return _prepare(specs, encoder, folders, sampler, kept)


def prepare_with(
    specs: Sequence[TaskSpec],
    tokenizer: PreTrainedTokenizerBase,
    folders: TaskFolders,
    *,
    max_length: int,
    add_bos: bool = False,
    sampler: Sampler = "default",
) -> Prepared:
    """As `prepare`, with a tokenizer at hand and nothing kept."""
    encoder, kept = Encoder(tokenizer, max_length, add_bos=add_bos), _Kept(PlanCache(None), {})
    return _prepare(specs, encoder, folders, sampler, kept)


def build_requests(task: FileTask) -> list[list[tuple[str, str]]]:
    """The (context, continuation) pairs of every document, in document and choice order, from the harness itself.

    Few-shot examples are one stream of draws in document order, so all documents are built at once, by one process,
    whichever of them will be scored.

    Raises:
        TaskError: there are fewer examples than shots, or the prompts are those of other documents.
    """
    task.set_fewshot_seed(FEWSHOT_SEED)
    try:
        with without_progress_bars(), as_in_the_harness(task.randomness):
            task.build_all_requests(limit=None, rank=0, world_size=1)
    except ValueError as error:
        raise TaskError(
            f"the prompts of task {task.config.task!r} with {task.config.num_fewshot} shots cannot be built ({error}): "
            "lower num_fewshot or give the training split more rows",
            where=task.config.task,
        ) from error
    if task.drawn:
        _check_steady(task)
    return requests_of(task)


def _check_steady(task: FileTask) -> None:
    # The harness judges answers by the documents of yet another reading.
    asked = [instance.doc for instance in task.instances if instance.idx == 0]
    if asked[:: len(asked) // len(task.task_docs) or 1] != list(task.task_docs):
        name = task.config.task
        raise TaskError(
            f"task {name!r} draws other documents whenever they are read, so that lm-eval asks for some and judges by "
            "others: give process_docs a generator of its own, seeded inside it, or have the harness's numbers as they "
            f"are from `huarizo evaluate MODEL --tasks {name}`",
            where=name,
        )


def requests_of(task: Any) -> list[list[Any]]:
    """The arguments of every request that the harness has built, by document, in document and choice order."""
    # The harness numbers a document's requests by choice; each of them carries (task, document, repeats).
    grouped = groupby(task.instances, key=lambda instance: instance.metadata[1])
    return [[request.args for request in sorted(group, key=lambda r: r.idx)] for _, group in grouped]


def _prepare(
    specs: Sequence[TaskSpec], encoder: Encoder, folders: TaskFolders, sampler: Sampler, kept: _Kept
) -> Prepared:
    tasks = {}
    with templates_compiled_once():
        for spec in specs:
            # What a task's functions draw besides its prompts depends on nobody else's draws either.
            with as_in_the_harness():
                tasks[spec.task] = _prepare_task(spec, encoder, folders, sampler, kept)
            free_unused()
    return Prepared(tasks)


def _prepare_task(
    spec: TaskSpec, encoder: Encoder, folders: TaskFolders, sampler: Sampler, kept: _Kept
) -> PreparedTask:
    parts = canonical_parts(spec.task, folders, num_fewshot=spec.num_fewshot, sampler=sampler)
    check_metric(parts[0].task, spec.metric_name)
    content = describe(spec.task, parts)
    key = kept.key(spec, content, parts, encoder, sampler, folders)
    if kept.cache.holds(key):
        parts = ()  # The documents are not needed again, and take as much room as what was made of them.
    free_unused()
    plans = kept.cache.load(key)
    if plans is None or len(plans.trees) != content.documents:
        parts = parts or canonical_parts(spec.task, folders, num_fewshot=spec.num_fewshot, sampler=sampler)
        rules = tuple(answer_rule(part.task, doc, spec.metric_name) for part in parts for doc in part.documents)
        tasks, parts = [part.task for part in parts], ()
        twice = asks_twice(tasks[0])
        pairs = [document for task in tasks for document in build_requests(task)]
        del tasks
        free_unused()
        plans = _plans(pairs, rules, encoder, spec.task, twice=twice)
        kept.cache.keep(key, plans)
    return PreparedTask(
        content=content,
        spec=spec,
        documents=tuple(Document(tree, rule) for tree, rule in zip(plans.trees, plans.rules, strict=True)),
        prompts_digest=plans.prompts_digest,
        add_bos=encoder.add_bos,
        max_length=encoder.max_length,
        largest_token=plans.largest_token,
        sampler=sampler if spec.num_fewshot else "default",
    )


def _plans(
    pairs: list[list[tuple[str, str]]], rules: tuple[AnswerRule, ...], encoder: Encoder, task: str, *, twice: bool
) -> Plans:
    digest = prompts_digest(pairs)
    if twice:
        # After every choice comes the same one without its question, at which acc and acc_norm do not look.
        pairs = [document[::2] for document in pairs]
    _check_counts(pairs, rules, task)
    trees = tuple(_trees(pairs, encoder, task))
    largest = max(int(max(tree.tokens.max(), tree.entry_target.max())) for tree in trees)
    return Plans(trees, rules, digest, largest)


def _check_counts(pairs: list[list[tuple[str, str]]], rules: tuple[AnswerRule, ...], task: str) -> None:
    for number, (requests, rule) in enumerate(zip(pairs, rules, strict=True)):
        if len(requests) != len(rule.lengths):
            raise TaskError(
                f"every choice must be one request, but document {number} of task {task!r} has {len(rule.lengths)} "
                f"choices and {len(requests)} requests: have doc_to_choice give the same choices every time, or run "
                f"the task as a whole with `huarizo evaluate MODEL --tasks {task}`",
                where=task,
            )


def _trees(documents: list[list[tuple[str, str]]], encoder: Encoder, task: str) -> Iterator[TokenTree]:
    for start in range(0, len(documents), _ENCODED_TOGETHER):
        group = documents[start : start + _ENCODED_TOGETHER]
        try:
            requests = iter(encoder.requests([pair for pairs in group for pair in pairs]))
        except TaskError as error:
            raise TaskError(f"task {task!r}: {error.message}", where=task) from error
        for pairs in group:
            yield grow([next(requests) for _ in pairs])


def prompts_digest(documents: Sequence[Sequence[Any]]) -> str:
    """The sha256 over the arguments of every request, in order."""
    hashed = hashlib.sha256()
    for pairs in documents:
        hashed.update(json.dumps(pairs, default=str).encode())
    return hashed.hexdigest()


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MissingCheckpointError(f"{str(folder)!r} holds no usable tokenizer ({error}): add its files") from error


def _model_config(folder: Path) -> dict[str, Any]:
    file = Path(folder) / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return config
