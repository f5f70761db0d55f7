"""Tries packed into the rows of forward passes: which stand together, and what a pass over them is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.trees import Tokens, TokenTree, branches, chains, shared_length

#: A beginning that several documents share is read once for all if it has this many tokens, and they are this many.
SHARED_TOKENS, SHARING_DOCUMENTS = 32, 4


@dataclass(frozen=True)
class Placed:
    """A trie and the slot of its first request, counted over all requests of a call."""

    tree: TokenTree
    slot: int


@dataclass(frozen=True)
class Stem:
    """Documents that begin alike: what they share, and the tries that stand on it."""

    tokens: Tokens
    crown: list[Placed]


@dataclass(frozen=True)
class Batch:
    """Rows of packed tries, right-padded with nodes that see only themselves.

    Attributes:
        tokens, depth, end: (rows, length); `end` counts within the row.
        predicting: (r,) flat indices of the nodes that predict something.
        entry_row: (m,) index into `predicting`; entry_target: (m,) the token; entry_slot: (m,) the request, counted
            over all requests of the call.
        causal: whether each row is one unbranched text, so that no mask is needed.
    """

    tokens: NDArray[np.int64]
    depth: NDArray[np.int64]
    end: NDArray[np.int64]
    predicting: NDArray[np.int64]
    entry_row: NDArray[np.int64]
    entry_target: NDArray[np.int64]
    entry_slot: NDArray[np.int64]
    causal: bool


def place(trees: Sequence[TokenTree]) -> list[Placed]:
    """Each trie with its slot."""
    slots = np.cumsum([0, *(tree.requests for tree in trees)])
    return [Placed(tree, int(slot)) for tree, slot in zip(trees, slots[:-1], strict=True)]


def find_stems(placed: list[Placed], alone: int | None) -> tuple[list[Stem], list[Placed]]:
    """The documents to be read on a stem, and the others.

    Args:
        placed: all documents.
        alone: tokens from which a document that shares its trunk with no other is worth a stem; None for none.
    """
    kin: dict[bytes, list[Placed]] = {}
    for item in placed:
        if item.tree.trunk >= SHARED_TOKENS:
            kin.setdefault(item.tree.tokens[:SHARED_TOKENS].tobytes(), []).append(item)
    stems = [stem for group in kin.values() if (stem := _common_stem(group)) is not None]
    taken = {item.slot for stem in stems for item in stem.crown}
    rest = [item for item in placed if item.slot not in taken]
    own = [item for item in rest if alone is not None and item.tree.trunk >= alone and not item.tree.is_chain]
    taken = {item.slot for item in own}
    stems += [_stem([item], item.tree.trunk) for item in own]
    return sorted(stems, key=lambda stem: -len(stem.tokens)), [item for item in rest if item.slot not in taken]


def _common_stem(group: list[Placed]) -> Stem | None:
    trunks = [item.tree.trunk for item in group]
    first = group[0].tree.tokens
    shared = min(*trunks, *(shared_length(first, item.tree.tokens) for item in group))
    # Where much of each trunk remains, the documents would be read in long rows of no more use than their own stems.
    return _stem(group, shared) if len(group) >= SHARING_DOCUMENTS and 2 * shared >= max(trunks) else None


def _stem(group: list[Placed], length: int) -> Stem:
    return Stem(group[0].tree.tokens[:length], [Placed(item.tree.above(length), item.slot) for item in group])


def pack(placed: list[Placed], row_nodes: int) -> list[list[Placed]]:
    """Rows of tries, longest first, each filled up to `row_nodes` (first fit in decreasing order)."""
    rows: list[list[Placed]] = []
    room: list[int] = []
    first_open = 0
    for item in sorted(placed, key=lambda p: -len(p.tree)):
        while first_open < len(rows) and room[first_open] <= 0:
            first_open += 1
        size = len(item.tree)
        for row in range(first_open, len(rows)):
            if size <= room[row]:
                rows[row].append(item)
                room[row] -= size
                break
        else:
            rows.append([item])
            room.append(row_nodes - size)
    return sorted(rows, key=lambda row: -row_length(row))


def plain_rows(placed: list[Placed]) -> list[list[Placed]]:
    """Rows of one text each, longest first, so that neighbours need little padding; none begins another one."""
    single = [Placed(branch, item.slot) for item in placed for branch in branches(item.tree)]
    return [[item] for item in sorted(single, key=lambda p: -len(p.tree))]


def rows_by_length(placed: list[Placed]) -> list[list[Placed]]:
    """Rows of one text each, shortest first, one for every request."""
    single = [Placed(chain, item.slot + i) for item in placed for i, chain in enumerate(chains(item.tree))]
    return [[item] for item in sorted(single, key=lambda p: len(p.tree))]


def row_length(row: list[Placed]) -> int:
    """Nodes of a row."""
    return sum(len(item.tree) for item in row)


def fitting(rows: list[list[Placed]], batch_tokens: int, *, by_length: bool = False) -> int:
    """How many of `rows` make one batch as wide as the first of them; with `by_length` all of them are that long."""
    widest = row_length(rows[0])
    count = max(1, min(len(rows), batch_tokens // widest))
    return sum(row_length(row) == widest for row in rows[:count]) if by_length else count


def assemble(rows: list[list[Placed]]) -> Batch:
    """One batch of rows, the first of which is the longest."""
    width = row_length(rows[0])
    tokens = np.zeros((len(rows), width), np.int64)
    depth = np.zeros((len(rows), width), np.int64)
    end = np.tile(np.arange(1, width + 1), (len(rows), 1))
    predicting, entry_row, entry_target, entry_slot = [], [], [], []
    seen = 0
    for index, row in enumerate(rows):
        start = 0
        for item in row:
            tree, stop = item.tree, start + len(item.tree)
            tokens[index, start:stop] = tree.tokens
            depth[index, start:stop] = tree.depth
            end[index, start:stop] = tree.end + start
            predicting.append(tree.rows + (index * width + start))
            entry_row.append(tree.entry_row + seen)
            entry_target.append(tree.entry_target)
            entry_slot.append(tree.entry_request + item.slot)
            seen, start = seen + len(tree.rows), stop
    return Batch(
        tokens,
        depth,
        end,
        predicting=_joined(predicting),
        entry_row=_joined(entry_row),
        entry_target=_joined(entry_target),
        entry_slot=_joined(entry_slot),
        causal=all(len(row) == 1 and row[0].tree.is_chain for row in rows),
    )


def _joined(parts: list[Tokens]) -> NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64)
