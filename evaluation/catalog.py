"""Where evaluation tasks come from: the pinned harness's own YAML, registered folders, and local Parquet data.

A task object is always lm-eval's `ConfigurableTask`, so prompts, metrics and versions stay the harness's. Only the way
its documents are read differs: local Parquet and JSON files are read straight into memory, so that no cache is written,
no stale cache is read and no network is asked.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import datasets
import lm_eval.tasks
import lm_eval.utils
import pyarrow as pa
from lm_eval.api.samplers import get_sampler
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import load_yaml_config

from core.errors import TaskError, UnknownTaskError
from core.protocols import Sampler
from core.tasks import Side
from evaluation.files import FILE_BUILDERS, read_files, with_local_data, with_near_files
from evaluation.randomness import Randomness, as_in_the_harness
from evaluation.sources import digest, may_draw

#: Stock tasks that a datasets folder is expected to hold: the hub is not asked for these when the folder is set.
LOCAL_TASKS = ("arc_challenge", "arc_easy", "hellaswag", "winogrande")

#: The seed `lm_eval.simple_evaluate` gives every task's stream of few-shot draws.
FEWSHOT_SEED = 1234

_TASK_NAME = re.compile(r"""^["']?task["']?[ \t]*:[ \t]*["']?([^\s"'\[\]#]+)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
#: More examples than these are not held as dictionaries. Drawing from a short list, the sampler copies all of it.
_EXAMPLES_AT_ONCE = 4096
#: Bytes of documents in memory from which it is worth looking for some that nobody uses.
_MUCH = 16 << 20

logger = logging.getLogger(__name__)
# The harness tells on a root handler of its own about every prompt it builds.
logging.getLogger("lm-eval").setLevel(logging.WARNING)


@dataclass(frozen=True)
class TaskFolders:
    """Where to look for tasks and their documents.

    Attributes:
        datasets: holds `<name>/<split>.parquet` for the stock tasks of `LOCAL_TASKS` and any other; None, or no folder
            of another task's name, means the hub.
        registered: folders with lm-eval YAML tasks, searched with their subfolders.
    """

    datasets: Path | None = None
    registered: tuple[Path, ...] = ()


class Examples(Sequence[dict[str, Any]]):
    """Documents to draw from, each made a dictionary when it is asked for: all at once they take four times the room.

    Args:
        rows: the documents.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self._rows[index] for index in range(*place.indices(len(self)))]
        found: dict[str, Any] = self._rows[place]
        return found


class FileTask(ConfigurableTask):  # type: ignore[misc]
    """lm-eval's task over documents that are read from local files where its configuration names local files.

    A split's documents are set up once. Where that may draw at random, they are set up as often as the harness does
    it, over files read as the harness reads them, in a cache of the task's own: which draws are kept and which are
    drawn anew depends on that cache.

    Attributes:
        forbids_shots: its YAML says `num_fewshot: 0`, which the harness lets nobody override.
        drawn: whether documents are set up as often as in the harness.
        drew: whether setting them up moved the generators of random numbers, though nothing spoke of it.
        randomness: where the generators stand when its prompts are built; None is wherever they happen to stand.
    """

    _ready = False
    drew = False
    randomness: Randomness | None = None

    def __init__(self, config: dict[str, Any], *, drawn: bool = False) -> None:
        self.drawn, self._pool = drawn, None
        self._processed: dict[str, Any] = {}
        super().__init__(config=config)
        self._ready = True
        if self._reads_examples_singly(self._pool):
            self.sampler.docs = Examples(self._pool)
        self.forbids_shots = self.config.num_fewshot == 0

    def training_docs(self) -> Any:
        """The training split."""
        return self._once(self.config.training_split, super().training_docs)

    def validation_docs(self) -> Any:
        """The validation split."""
        return self._once(self.config.validation_split, super().validation_docs)

    def test_docs(self) -> Any:
        """The test split."""
        return self._once(self.config.test_split, super().test_docs)

    def _once(self, split: str | None, process: Callable[[], Any]) -> Any:
        # The harness sets the documents of a split up anew whenever it needs them, three times or more.
        if split is None or self.drawn:
            return process()
        if split not in self._processed:
            before = Randomness.now()
            self._processed[split] = process()
            self.drew = self.drew or not before.same(Randomness.now())
        return self._processed[split]

    def fewshot_docs(self) -> Any:
        """The documents that examples are drawn from."""
        self._pool = self._once(self.config.fewshot_split, super().fewshot_docs)
        # The harness makes a list of them for its sampler, which is given what it needs once it is there.
        return () if self._reads_examples_singly(self._pool) and not self._ready else self._pool

    def _reads_examples_singly(self, pool: Any) -> bool:
        # A sampler of the task's own may look at all of them as it is made.
        stock = isinstance((self.config.fewshot_config or {}).get("sampler", "default"), str)
        return stock and isinstance(pool, datasets.Dataset) and len(pool) > _EXAMPLES_AT_ONCE

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """Fill `self.dataset`: from local Parquet or JSON files without any cache, else as the harness does.

        Raises:
            TaskError: a file is absent or unreadable, or the hub cannot be reached.
        """
        files = (dataset_kwargs or {}).get("data_files")
        local = self.DATASET_PATH in FILE_BUILDERS and isinstance(files, Mapping)
        if local and files and not self.drawn:
            self.dataset = {split: read_files(self.DATASET_PATH, names) for split, names in files.items()}
            return
        if local:
            self._folder = tempfile.TemporaryDirectory(prefix="huarizo-documents-", ignore_cleanup_errors=True)
            dataset_kwargs = {**(dataset_kwargs or {}), "cache_dir": self._folder.name}
        _refuse_shadowing(str(self.DATASET_PATH))
        try:
            super().download(dataset_kwargs)
        except Exception as error:
            # The harness lets through whatever `datasets`, the hub's client and their HTTP library raise.
            raise TaskError(
                f"the documents of task {self.config.task!r} could not be had from {self.DATASET_PATH!r} ({error}): "
                "set HUARIZO_DATASETS to a folder with its Parquet files, or let this machine reach the hub",
                where=self.config.task,
            ) from error


def known_tasks(folders: TaskFolders) -> tuple[str, ...]:
    """The names of the harness's stock tasks and of every registered one, sorted."""
    return tuple(sorted({**_stock(), **_registered(folders.registered)}))


def load_task(
    name: str,
    folders: TaskFolders,
    *,
    num_fewshot: int = 0,
    split: Side | None = None,
    sampler: Sampler = "default",
) -> FileTask:
    """A fresh task object whose few-shot stream stands at the beginning, as `simple_evaluate` would set it up.

    Its documents are those of a `simple_evaluate` that was asked for this one task: that seeds the process's generators
    of random numbers once and then makes one task after the other, so in a longer list a task that draws from them
    could get others. The caller's generators stay where they were.

    Args:
        name: a stock or a registered task.
        folders: where tasks and documents are.
        num_fewshot: examples before each question.
        split: for a task whose metadata names `search_split` and `heldout_split`, the one to evaluate on; None keeps
            the stock evaluation split.
        sampler: `first_n` gives every document the same first examples; `default` leaves the choice to the task.

    Raises:
        UnknownTaskError: no such task.
        TaskError: the documents cannot be had, or the task is of a kind that cannot be scored.
    """
    with as_in_the_harness():
        task = _loaded(name, folders, num_fewshot, split, sampler)
        task.randomness = Randomness.now()
    free_unused()
    return task


def _loaded(name: str, folders: TaskFolders, num_fewshot: int, split: Side | None, sampler: Sampler) -> FileTask:
    config = configuration(name, folders)
    kind = config.get("output_type", "generate_until")
    if kind != "multiple_choice":
        raise TaskError(
            f"only multiple_choice tasks can be scored document by document, but {name!r} is {kind!r}: choose a "
            f"multiple-choice task, or run it as a whole with `huarizo evaluate MODEL --tasks {name}`",
            where=name,
        )
    task = construct(name, config)
    if num_fewshot and sampler == "first_n":
        # The sampler alone: the task's configuration, and so the digest of its content, stays what it was.
        task.sampler = get_sampler(sampler)(task.sampler.docs, task, rnd=task.fewshot_rnd)
    _set_shots(task, num_fewshot)
    if split is not None:
        _turn_to(task, split_names(task)[split])
    return task


def split_names(task: FileTask) -> dict[Side, str]:
    """The splits that the task's metadata names for the two sides, or nothing.

    Raises:
        TaskError: only one of the two is named, both are one split, or a split does not exist.
    """
    metadata = task.config.metadata if isinstance(task.config.metadata, dict) else {}
    keys: dict[Side, str] = {"search": "search_split", "heldout": "heldout_split"}
    names: dict[Side, str] = {side: str(metadata[key]) for side, key in keys.items() if metadata.get(key)}
    if not names:
        return {}
    if len(set(names.values())) != 2 or any(split not in task.dataset for split in names.values()):
        raise TaskError(
            f"metadata of task {task.config.task!r} must name search_split and heldout_split, two different splits of "
            f"its data, but names {names!r}; the data has {sorted(task.dataset)!r}",
            where=task.config.task,
        )
    return names


def code_digest(task: FileTask, folders: TaskFolders) -> str | None:
    """The sha256 over the YAML and the code that a registered task is made of (see `evaluation.sources.digest`).

    None for stock tasks, which are the harness's of one version.
    """
    file = _registered(folders.registered).get(task.config.task)
    return None if file is None else digest(file, vars(task.config))


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps the bars that the harness and `datasets` draw, whatever the log level, off stderr."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def free_unused() -> None:
    """Give back what the documents of tasks no longer in use held."""
    pool = pa.default_memory_pool()
    if pool.bytes_allocated() > _MUCH:
        gc.collect()  # A task and its sampler refer to each other.
    pool.release_unused()


@contextlib.contextmanager
def templates_compiled_once() -> Iterator[None]:
    """While this holds, the harness compiles a template of a task once, not anew for every document and example."""
    environment = lm_eval.utils.env
    environment.from_string = functools.lru_cache(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


def construct(name: str, config: dict[str, Any]) -> FileTask:
    """The task of a configuration, its documents read, and drawn where the generators of random numbers stand.

    Raises:
        TaskError: the documents cannot be had, or the configuration does not fit them.
    """
    before = Randomness.now()
    try:
        with without_progress_bars():
            task = FileTask({**config}, drawn=may_draw(config.get("process_docs")))
            if task.drew:
                before.put()
                task = FileTask({**config}, drawn=True)
            return task
    except TaskError:
        raise
    except Exception as error:
        # A YAML can fail in any way: a split that is not there, a template that names no column, functions of its own.
        raise TaskError(
            f"task {name!r} could not be set up ({type(error).__name__}: {error}): correct its YAML or its data",
            where=name,
        ) from error


def _set_shots(task: FileTask, num_fewshot: int) -> None:
    if num_fewshot and task.forbids_shots:
        raise TaskError(
            f"task {task.config.task!r} sets num_fewshot: 0 itself, so {num_fewshot!r} shots cannot be had: ask for 0",
            where=task.config.task,
        )
    task.set_config("num_fewshot", num_fewshot)
    task.set_fewshot_seed(FEWSHOT_SEED)


def _turn_to(task: FileTask, split: str) -> None:
    # The harness evaluates on test_split if there is one, else on validation_split. The example pool was drawn up when
    # the task was constructed, so it stays the stock one.
    key = "test_split" if task.has_test_docs() else "validation_split"
    if task.get_config(key) != split:
        task.set_config(key, split)
        task.task_docs = task.eval_docs


def configuration(name: str, folders: TaskFolders) -> dict[str, Any]:
    """What a task's YAML says, with its documents' files where they are local.

    Raises:
        UnknownTaskError: no such task.
        TaskError: its YAML cannot be read or takes a stock task's name, or a file of its documents is missing.
    """
    registered = _registered(folders.registered)
    if name in registered:
        return with_local_files(_registered_yaml(name, registered[name]), folders)
    if name not in _stock():
        raise UnknownTaskError.suggest(name, known_tasks(folders), where=name)
    return with_local_files(load_yaml_config(str(_stock()[name])), folders)


def with_local_files(config: dict[str, Any], folders: TaskFolders) -> dict[str, Any]:
    """A task's configuration as the harness reads it, with its documents' files where they are local.

    Raises:
        TaskError: a registered task takes a stock task's name, or a file of its documents is missing.
    """
    name, registered = str(config["task"]), _registered(folders.registered)
    if name in registered:
        if name in _stock():
            raise TaskError(
                f"{registered[name]} registers {name!r}, the name of a stock task: choose another name", where=name
            )
        return with_near_files(config, registered[name].parent)
    if folders.datasets is not None and (name in LOCAL_TASKS or (folders.datasets / name).is_dir()):
        return with_local_data(config, folders.datasets / name)
    return config


def _registered_yaml(name: str, file: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = load_yaml_config(str(file))
    except Exception as error:
        # The YAML may include others and name Python functions, so anything may come of it.
        raise TaskError(
            f"task {name!r} cannot be read from {str(file)!r} ({error}): correct the file", where=name
        ) from error
    return config


def _refuse_shadowing(path: str) -> None:
    # `datasets` takes a folder of a hub data set's name in the working directory for the data set itself.
    if not os.path.isabs(path) and Path(path).is_dir():
        raise TaskError(f"a folder {path!r} in the working directory hides the hub's data set: start from elsewhere")


@functools.cache
def _stock() -> dict[str, Path]:
    return dict(_index(Path(lm_eval.tasks.__file__).parent))


def _registered(folders: tuple[Path, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for name, file in _index(folder):
            if name in found:
                raise TaskError(f"task {name!r} is registered in {found[name]} and {file}: rename one", where=name)
            found[name] = file
    return found


def _index(folder: Path) -> list[tuple[str, Path]]:
    """Task names and their files. One line per file is looked for: a tenth of the time of the harness's own index."""
    found = []
    for file in sorted(folder.rglob("*.yaml")):
        text = _text(file)
        match = _TASK_NAME.search(text)
        if match and not re.search(r"^class:", text, re.MULTILINE):
            found.append((match[1], file))
    return found


def _text(file: Path) -> str:
    """What a YAML file says; nothing where it cannot be read, so that one bad file hides no other."""
    try:
        if not file.is_file() and file.exists():  # A folder, or a pipe, which would wait for whoever writes into it.
            return ""
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("a task file cannot be read and is passed over: %s: %s", file.name, error)
        return ""
