"""Documents of tasks in local Parquet and JSON files, read straight into memory: no cache is written, none is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import TaskError

#: What lm-eval calls the ways to read local files.
FILE_BUILDERS = ("parquet", "json")

_ROWS_READ_TOGETHER = 8192


def with_local_data(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stock task's configuration over `<split>.parquet` in a folder.

    Raises:
        TaskError: a split that the task cannot do without has no file.
    """
    splits = {config.get(key) for key in ("training_split", "validation_split", "test_split", "fewshot_split")} - {None}
    evaluated = config.get("test_split") or config.get("validation_split")
    needed = {config.get("training_split"), evaluated, config.get("fewshot_split")} - {None}
    files = {str(split): folder / f"{split}.parquet" for split in splits}
    missing = sorted(str(files[str(split)]) for split in needed if not files[str(split)].is_file())
    if missing:
        raise TaskError(
            f"task {config['task']!r} needs the file {missing[0]!r}: put the split there as Parquet with the columns "
            "of the hub's data set, or unset HUARIZO_DATASETS to use the hub",
            where=config["task"],
        )
    present = {split: str(file) for split, file in sorted(files.items()) if file.is_file()}
    return {**config, "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": present}}


def with_near_files(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration whose relative file names start at the folder of its YAML."""
    # lm-eval reads relative file names from wherever the process was started; beside the YAML is what its author meant.
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("dataset_path") not in FILE_BUILDERS or not isinstance(files, Mapping):
        return config
    near = {split: [str(folder / name) for name in _names(names)] for split, names in files.items()}
    return {**config, "dataset_kwargs": {**config["dataset_kwargs"], "data_files": near}}


def _names(names: Any) -> list[str]:
    return [str(name) for name in names] if isinstance(names, list | tuple) else [str(names)]


def read_files(builder: str, names: Any) -> datasets.Dataset:
    """The rows of Parquet or JSON files, one after the other.

    Raises:
        TaskError: a file is absent or unreadable.
    """
    parts = [_read_file(builder, Path(name)) for name in _names(names)]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def _read_file(builder: str, file: Path) -> datasets.Dataset:
    try:
        if builder == "parquet":
            # Without a fingerprint the whole table would be copied and hashed for one.
            return datasets.Dataset(_read_parquet(file), fingerprint=_fingerprint(file))
        text = file.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            return datasets.Dataset.from_list(json.loads(text))
        return datasets.Dataset.from_list([json.loads(line) for line in text.splitlines() if line.strip()])
    except FileNotFoundError as error:
        raise TaskError(f"the data file {str(file)!r} does not exist: correct data_files or put it there") from error
    except Exception as error:
        raise TaskError(f"the data file {str(file)!r} cannot be read as {builder} ({error}): write it anew") from error


def _read_parquet(file: Path) -> pa.Table:
    """A file's rows, decoded some at a time: all at once takes four times their size."""
    with pq.ParquetFile(file) as parts:
        schema = parts.schema_arrow
        return pa.Table.from_batches(parts.iter_batches(_ROWS_READ_TOGETHER, use_threads=False), schema)


def _fingerprint(file: Path) -> str:
    found = file.stat()
    return hashlib.sha256(f"{file.absolute()}:{found.st_size}:{found.st_mtime_ns}".encode()).hexdigest()[:16]
