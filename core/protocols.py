"""Evaluation protocols: under which rules a score was taken. Scores of different protocols are never compared."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

from core.errors import InvalidInputError, UnknownNameError
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


class Asked(Noun):
    """One task or group that a whole evaluation runs.

    Attributes:
        num_fewshot: examples before each question; None leaves the task its own number.
        metric: the one that the protocol goes by; None where it fixes none.
    """

    task: str
    num_fewshot: int | None = None
    metric: str | None = None


class Evaluation(Noun):
    """What a whole evaluation runs, under which protocol."""

    protocol: Protocol
    tasks: tuple[Asked, ...]

    @property
    def whole(self) -> bool:
        """Whether these are all the tasks that the protocol fixes, so that it has one number for a model."""
        return bool(self.protocol.tasks) and len(self.tasks) == len(self.protocol.tasks)


def evaluation_of(protocol: str | None, tasks: Sequence[str], num_fewshot: int | None = None) -> Evaluation:
    """What is meant by a protocol, tasks and shots.

    Args:
        protocol: its name; None is `search`, the stock prompts.
        tasks: names of tasks or groups; none for all that the protocol fixes.
        num_fewshot: for every task; None leaves each its own.

    Raises:
        UnknownNameError: no such protocol.
        InvalidInputError: no tasks, one of them twice, or tasks or shots that the protocol does not have.
    """
    rules = _protocol(protocol or "search")
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise InvalidInputError(f"each task may be named once, but {twice!r} are named more often: name them once")
    if num_fewshot is not None and num_fewshot < 0:
        raise InvalidInputError(f"the number of shots is 0 or more, but got {num_fewshot!r}: give another")
    if rules.tasks:
        return Evaluation(protocol=rules, tasks=_fixed(rules, tasks, num_fewshot))
    if not tasks:
        raise InvalidInputError(
            f"protocol {rules.name!r} fixes no tasks, and none were named: name some with --tasks, or choose a "
            f"protocol that does, such as {_fixing()[0]!r}"
        )
    return Evaluation(protocol=rules, tasks=tuple(Asked(task=task, num_fewshot=num_fewshot) for task in tasks))


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownNameError(f"unknown protocol {name!r}: {hint}there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _fixed(rules: Protocol, tasks: Sequence[str], num_fewshot: int | None) -> tuple[Asked, ...]:
    known = [fixed.task for fixed in rules.tasks]
    other = [task for task in tasks if task not in known]
    if other or num_fewshot is not None:
        what = f"tasks, and {other!r} are not among them" if other else "the shots of its tasks"
        raise InvalidInputError(
            f"protocol {rules.name!r} fixes {what} (its tasks are {', '.join(known)}): leave --num-fewshot out and "
            "name some of these, or leave out --protocol"
        )
    chosen = (fixed for fixed in rules.tasks if not tasks or fixed.task in tasks)
    return tuple(Asked(task=each.task, num_fewshot=each.num_fewshot, metric=each.metric) for each in chosen)


def _fixing() -> list[str]:
    return [name for name, protocol in PROTOCOLS.items() if protocol.tasks]
