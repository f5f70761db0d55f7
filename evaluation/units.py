"""What a whole evaluation is asked for by name: a task of any kind, or a group of them, made ready for the harness.

A name of one task is looked up as `evaluation.catalog` does. Anything else (a group, a task that is Python code) is
left to the harness's own index; its tasks still read local documents where there are some.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.samplers import ContextSampler, FirstNSampler, get_sampler
from lm_eval.tasks import TaskManager

from core.errors import HuarizoError, TaskError, UnknownTaskError
from core.protocols import Sampler
from evaluation.catalog import (
    FileTask,
    TaskFolders,
    configuration,
    construct,
    free_unused,
    known_tasks,
    with_local_files,
    without_progress_bars,
)
from evaluation.randomness import Randomness, as_in_the_harness

#: Samplers that draw from a pool, and so need one that is large enough.
_DRAWING = (ContextSampler, FirstNSampler)


@dataclass(frozen=True)
class Unit:
    """One name with its tasks; it stands in for the harness's task manager, which would load them anew.

    Attributes:
        name: a task or a group.
        loaded: what the harness makes of the name: its tasks, and its groups with their places in one another.
        randomness: where the generators of random numbers stood when all was made; None keeps them as they are.
    """

    name: str
    loaded: dict[str, Any]
    randomness: Randomness | None = None

    @property
    def tasks(self) -> dict[str, Any]:
        """The task objects by name, groups left out."""
        found = ((name, each[1] if isinstance(each, tuple) else each) for name, each in self.loaded.items())
        return {name: task for name, task in found if task is not None}

    def load_task_or_group(self, names: list[str]) -> dict[str, Any]:
        """What the harness asks its task manager for; the generators go where making it would have left them."""
        if self.randomness is not None:
            self.randomness.put()
        return self.loaded


def load_unit(name: str, folders: TaskFolders, *, num_fewshot: int | None, sampler: Sampler = "default") -> Unit:
    """A task or a group with its documents, its shots and its choice of examples set.

    Everything is made as in a `simple_evaluate` that was asked for this one name, with generators of random numbers
    that it seeds once for all of a group's tasks, in the harness's order; the caller's stay where they were.

    Args:
        name: a stock or registered task or group of lm-eval 0.4.3.
        folders: where tasks and documents are.
        num_fewshot: examples before each question; None leaves each task its own number.
        sampler: `first_n` gives every document the same first examples; `default` leaves the choice to the task.

    Raises:
        UnknownTaskError: neither a task nor a group.
        TaskError: documents or examples cannot be had, or a task's configuration cannot be read.
    """
    with as_in_the_harness():
        alone = name in known_tasks(folders)
        loaded = {name: construct(name, configuration(name, folders))} if alone else _load(name, folders)
        unit = Unit(name, loaded, Randomness.now())
    for task_name, task in unit.tasks.items():
        _set_shots(task_name, task, num_fewshot)
        _set_sampler(task, sampler)
        _check_examples(task_name, task)
    free_unused()
    return unit


def _load(name: str, folders: TaskFolders) -> dict[str, Any]:
    manager = _manager(folders.registered)
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "add its folder to HUARIZO_TASK_FOLDERS"
        raise UnknownTaskError(f"{name!r} is no task or group of lm-eval 0.4.3 or of your own: {hint}", where=name)
    try:
        with without_progress_bars(), _made_by(lambda config: _made(config, folders)):
            return dict(manager.load_task_or_group([name]))
    except HuarizoError:
        raise
    except Exception as error:
        # A group's YAML, and a task that is Python code, can fail in any way.
        raise TaskError(
            f"{name!r} could not be set up ({type(error).__name__}: {error}): correct its YAML or its data, or set "
            "HUARIZO_DATASETS to a folder with the Parquet files of its tasks, or let this machine reach the hub",
            where=name,
        ) from error


def _made(config: dict[str, Any], folders: TaskFolders) -> FileTask:
    return construct(str(config["task"]), with_local_files(config, folders))


@contextlib.contextmanager
def _made_by(make: Callable[[dict[str, Any]], FileTask]) -> Iterator[None]:
    """While this holds, the harness makes its tasks with `make`."""
    stock = lm_eval.tasks.ConfigurableTask
    lm_eval.tasks.ConfigurableTask = lambda config: make(config)
    try:
        yield
    finally:
        lm_eval.tasks.ConfigurableTask = stock


def _manager(registered: Sequence[Path]) -> TaskManager:
    """The harness's task manager over its own tasks and the registered folders; a new one, for it counts what it loads.

    Raises:
        TaskError: a folder cannot be read, or registers a stock name, which the harness would pass over in silence.
    """
    stock = _stock_manager()
    manager = copy.copy(stock)
    manager.task_group_map = defaultdict(list)
    for folder in registered:
        try:
            own = TaskManager("ERROR", include_path=str(folder), include_defaults=False).task_index
        except Exception as error:
            # One file that is no YAML ends the harness's reading of all of them.
            raise TaskError(f"the tasks in {str(folder)!r} cannot be read ({error}): correct the YAML file") from error
        taken = sorted(name for name in own.keys() & stock.task_index.keys() if own[name]["yaml_path"] != -1)
        if taken:
            raise TaskError(f"{str(folder)!r} registers {taken!r}, names of stock tasks or groups: choose others")
        manager._task_index = {**own, **manager._task_index}
    manager._all_tasks = sorted(manager._task_index)
    return manager


@functools.cache
def _stock_manager() -> TaskManager:
    # It reads every YAML file of the harness: seconds, so only where a name is no plain task.
    return TaskManager("ERROR")


def _set_shots(name: str, task: Any, num_fewshot: int | None) -> None:
    own = task.get_config("num_fewshot")
    if num_fewshot and own == 0:
        raise TaskError(
            f"task {name!r} sets num_fewshot: 0 itself, so {num_fewshot!r} shots cannot be had: ask for 0, or leave "
            "--num-fewshot out",
            where=name,
        )
    task.set_config("num_fewshot", (own or 0) if num_fewshot is None else num_fewshot)


def _set_sampler(task: Any, sampler: Sampler) -> None:
    if sampler == "first_n" and task.get_config("num_fewshot") and hasattr(task, "sampler"):
        task.sampler = get_sampler(sampler)(task.sampler.docs, task, rnd=task.fewshot_rnd)


def _check_examples(name: str, task: Any) -> None:
    shots = task.get_config("num_fewshot")
    if not shots or type(getattr(task, "sampler", None)) not in _DRAWING:
        return
    # One more is drawn where the question itself may be among them.
    drawn = shots + (task.config.fewshot_split == task.config.test_split)
    if drawn > len(task.sampler.docs):
        raise TaskError(
            f"{shots} shots of task {name!r} draw {drawn} examples, but there are {len(task.sampler.docs)}: lower the "
            "number of shots or give its examples' split more rows",
            where=name,
        )
