"""Embeddings and output matrices of sources with different vocabularies, brought into one order of rows.

A source that lacks a token gets, in its place, the mean of the rows of the sources that have it, so that methods which
take deltas see a row that is close to theirs. Rows that no source has get the mean of the donor's: by Jensen's
inequality the k rows of such a mean take at most k/V of the probability that V tokens share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.alignment import Alignment, align, union_tokenizer
from core.errors import CheckpointError
from core.noun import digest_of
from core.recipe.resolved import ResolvedRecipe
from core.vocabulary import Vocabulary, read_vocabulary
from merging.sources import Parents

#: Rows whose means are taken together; bounds the memory, does not change the bytes.
ROWS = 1024


class Vocabularies:
    """The vocabularies of open parents, each read once, and the orders of rows made of them.

    Args:
        parents: the open checkpoints, which take in the aligned rows of their tensors.
    """

    def __init__(self, parents: Parents) -> None:
        self.parents = parents
        self._read: dict[Path, Vocabulary] = {}
        self._aligned: dict[str, Alignment] = {}

    def align(self, recipe: ResolvedRecipe) -> Alignment | None:
        """The order of the recipe's rows; None where its sources have one vocabulary.

        Raises:
            ParentsDoNotFitError: tokenizers that read a text in different ways.
            MissingCheckpointError, CheckpointError: a tokenizer cannot be read, or is not the registered one.
        """
        if recipe.vocabulary is None:
            return None
        digests = [source.source_digest for source in recipe.sources]
        key = digest_of([recipe.vocabulary.model_dump(mode="json"), recipe.tokenizer, digests])
        if key not in self._aligned:
            rows = [self.parents.headers[digest].vocab_size for digest in digests]
            pairs = list(zip(self.of(recipe), rows, strict=True))
            wanted = recipe.vocabulary
            alignment = align(wanted.mode, pairs, recipe.tokenizer, wanted.pad_to_multiple_of)
            for position in range(len(digests)):
                made = AlignedRows(alignment, digests, position)
                self.parents.derive(recipe.aligned_digest(position), made)
            self._aligned[key] = alignment
        return self._aligned[key]

    def of(self, recipe: ResolvedRecipe) -> list[Vocabulary]:
        """The vocabulary of each of the recipe's sources; errors as in `align`."""
        assert recipe.vocabulary is not None
        pairs = zip(recipe.sources, recipe.vocabulary.tokenizers, strict=True)
        return [self._vocabulary(source.source_digest, tokenizer) for source, tokenizer in pairs]

    def tokenizer(self, recipe: ResolvedRecipe) -> dict[str, Any] | None:
        """The `tokenizer.json` of a union; None where the candidate has its donor's. Errors as in `align`."""
        alignment = self.align(recipe)
        if alignment is None or recipe.vocabulary is None or recipe.vocabulary.mode != "union":
            return None
        return union_tokenizer(self.of(recipe), alignment)

    def _vocabulary(self, digest: str, tokenizer: str) -> Vocabulary:
        # By folder: tokenizers of equal tokens may read a text, or frame it, in different ways.
        folder = self.parents.folders[digest]
        found = self._read.get(folder) or read_vocabulary(folder)
        if found.digest != tokenizer:
            raise CheckpointError(f"the tokenizer of {folder.name!r} must be as registered: register it again")
        self._read[folder] = found
        return found


class AlignedRows:
    """One source's embedding and output matrix in the order of an alignment, float32.

    Args:
        alignment: the order.
        digests: weights digests of all sources.
        position: which of them this is.
    """

    def __init__(self, alignment: Alignment, digests: Sequence[str], position: int) -> None:
        self._digests, self._position, self._donor = tuple(digests), position, alignment.donor
        self._places = torch.tensor(alignment.places, dtype=torch.int64)
        known = [
            place for place, token in zip(alignment.places[alignment.donor], alignment.tokens, strict=True) if token
        ]
        self._donor_rows = torch.tensor([place for place in known if place >= 0], dtype=torch.int64)

    def origin(self, name: str) -> tuple[str, str] | None:
        """None: every row may have moved."""
        return None

    def make(self, name: str, parents: Parents) -> Tensor:
        """The matrix `name` of this source, on the parents' device, shape (rows, width)."""
        tensors = [parents.tensor(digest, name, keep=False) for digest in self._digests]
        places = self._places.to(parents.device)
        own = tensors[self._position]
        result = torch.empty((places.shape[1], own.shape[1]), dtype=torch.float32, device=parents.device)
        here = torch.nonzero(places[self._position] >= 0).view(-1)
        result[here] = own[places[self._position, here]].float()
        missing = torch.nonzero(places[self._position] < 0).view(-1)
        for part in _blocks(missing):
            result[part] = _means([(t, p[part]) for t, p in zip(tensors, places, strict=True)])
        nobodys = torch.nonzero((places < 0).all(0)).view(-1)
        if len(nobodys):
            donor = mean_of_rows(tensors[self._donor], self._donor_rows.to(parents.device))
            result[nobodys] = donor.float()
        return result

    def making_bytes(self, name: str, parents: Parents) -> int:
        """The matrices of all sources, the rows taken of one, and what means are made of."""
        read = sum(parents.read_bytes(digest, name) for digest in self._digests)
        shapes = (info.shape for info in parents.headers[self._digests[self._position]].tensors if info.name == name)
        width, rows = next(shapes)[1], self._places.shape[1]
        return read + rows * (12 * width + 24 + 9 * len(self._digests)) + 64 * ROWS * (width + 1)


def mean_of_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """The mean of some rows, float64: blocks of `ROWS` are summed by halving, and added in order.

    Args:
        matrix: (n, width).
        rows: indices, at least one.
    """
    total = torch.zeros(matrix.shape[1], dtype=torch.float64, device=matrix.device)
    for part in _blocks(rows):
        level = torch.zeros((ROWS, matrix.shape[1]), dtype=torch.float64, device=matrix.device)
        level[: len(part)] = matrix[part].double()
        while len(level) > 1:
            half = len(level) // 2
            level = level[:half] + level[half:]
        total += level[0]
    return total / len(rows)


def _blocks(rows: Tensor) -> list[Tensor]:
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]


def _means(sources: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean over the sources that have a row, in their order; 0/0 for rows that none has.

    Args:
        sources: of each its matrix and its place for every wanted row, -1 where it has none.
    """
    matrix, places = sources[0]
    count = torch.zeros((len(places), 1), dtype=torch.float64, device=matrix.device)
    total = torch.zeros((len(places), matrix.shape[1]), dtype=torch.float64, device=matrix.device)
    for matrix, places in sources:
        has = torch.nonzero(places >= 0).view(-1)
        total[has] += matrix[places[has]].double()
        count[has] += 1
    return (total / count).float()
