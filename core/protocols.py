"""Evaluation protocols: under which rules a score was taken. Scores of different protocols are never compared."""

from __future__ import annotations

from typing import Literal

from core.noun import Noun

#: How few-shot examples are chosen: drawn anew for every document (the harness's default), or the same first ones.
Sampler = Literal["default", "first_n"]
ProtocolName = Literal["search", "search-fast", "open-llm-v1-core", "open-llm-v1"]


class ProtocolTask(Noun):
    """A task that a protocol fixes, by lm-eval's names. Its metric may be one that only a whole evaluation reports."""

    task: str
    num_fewshot: int
    metric: str


class Protocol(Noun):
    """The rules of a score.

    Attributes:
        sampler: how few-shot examples are chosen.
        tasks: the tasks that it fixes with their shots and metrics; empty where the objective chooses.
        searchable: whether every task is scored document by document from log-likelihoods, as a search needs.
    """

    name: ProtocolName
    summary: str
    sampler: Sampler = "default"
    tasks: tuple[ProtocolTask, ...] = ()
    searchable: bool = True


_CORE = (
    ProtocolTask(task="arc_challenge", num_fewshot=25, metric="acc_norm"),
    ProtocolTask(task="hellaswag", num_fewshot=10, metric="acc_norm"),
    ProtocolTask(task="winogrande", num_fewshot=5, metric="acc"),
)
_REST = (
    ProtocolTask(task="mmlu", num_fewshot=5, metric="acc"),
    ProtocolTask(task="truthfulqa_mc2", num_fewshot=0, metric="acc"),
    ProtocolTask(task="gsm8k", num_fewshot=5, metric="exact_match"),
)

_ALL = (
    Protocol(name="search", summary="Stock prompts, 0-shot unless a task asks for more; examples drawn per document."),
    Protocol(
        name="search-fast",
        summary="As search, but every document gets the same first examples, so that prompts share their beginning. "
        "Not comparable with scores whose examples were drawn.",
        sampler="first_n",
    ),
    Protocol(
        name="open-llm-v1-core",
        summary="Three of the six tasks of the first Open LLM Leaderboard with its shots and metrics, in lm-eval 0.4.3 "
        "(the board ran another commit of the harness, so its published numbers are near, not equal).",
        tasks=_CORE,
    ),
    Protocol(
        name="open-llm-v1",
        summary="All six tasks of the first Open LLM Leaderboard with its shots and metrics, in lm-eval 0.4.3. GSM8K "
        "generates text and TruthfulQA weighs its answers, so it evaluates models and guides no search.",
        tasks=(*_CORE, *_REST),
        searchable=False,
    ),
)

#: Every protocol by name.
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
