"""Saying in tokens why two vocabularies do not fit: headers only know that they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from core.errors import CheckpointError, ParentsDoNotFitError
from core.model import Model
from core.vocabulary import difference, read_vocabulary


def in_tokens(
    error: ParentsDoNotFitError, models: Iterable[Model], folder_of: Callable[[str], Path]
) -> ParentsDoNotFitError:
    """The same failure; where it is about vocabularies, with their sizes and the first token that differs.

    Args:
        error: what a comparison of headers raised.
        models: those that were compared.
        folder_of: the folder of a reference.
    """
    if error.where != "tokenizer":
        return error
    first, *others = models
    other = next((m for m in others if _tokenizer(m) != _tokenizer(first)), None)
    if other is None:
        return error
    try:
        told = difference(*(read_vocabulary(folder_of(model.ref)) for model in (first, other)))
    except CheckpointError:
        return error  # A tokenizer in another form: its difference cannot be told.
    if told is None:
        return error
    return ParentsDoNotFitError(f"{error.message} ({first.name!r} and {other.name!r}: {told})", where=error.where)


def _tokenizer(model: Model) -> tuple[str | None, str | None]:
    return model.header.tokenizer_digest, model.header.tokenizer_rules
