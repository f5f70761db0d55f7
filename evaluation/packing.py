"""Tries packed into the rows of forward passes: which stand together, and what a pass over them is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.trees import Tokens, TokenTree, branches, chains, graft, shared_length

#: A beginning that several documents share is read once for all if it has this many tokens, and they are this many.
SHARED_TOKENS, SHARING_DOCUMENTS = 32, 4
#: Documents of one row that share so many tokens are worth standing together.
KIN_TOKENS = 8


@dataclass(frozen=True)
class Placed:
    """A trie and the slot of its first request, counted over all requests of a call."""

    tree: TokenTree
    slot: int


@dataclass(frozen=True)
class Stem:
    """Documents that begin alike.

    Attributes:
        tokens: what they share, or some of it.
        items: the documents.
    """

    tokens: Tokens
    items: tuple[Placed, ...]

    @property
    def crown(self) -> list[Placed]:
        """The tries that stand on it."""
        return [Placed(item.tree.above(len(self.tokens)), item.slot) for item in self.items]

    def cut(self, length: int) -> Stem:
        """The same documents on the beginning of what they share."""
        return replace(self, tokens=self.tokens[:length])


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
    taken = {item.slot for stem in stems for item in stem.items}
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
    return Stem(group[0].tree.tokens[:length], tuple(group))


@dataclass(frozen=True)
class Row:
    """What one row of a pass reads: a trie, or a forest, whose requests are numbered by their slots.

    Attributes:
        tree: all of it.
        items: the documents, or parts of documents, that it was made of.
    """

    tree: TokenTree
    items: tuple[Placed, ...]

    @classmethod
    def of(cls, item: Placed) -> Row:
        """A row of one document."""
        return cls(replace(item.tree, entry_request=item.tree.entry_request + np.int32(item.slot)), (item,))

    def __len__(self) -> int:
        return len(self.tree)


def pack(placed: list[Placed], row_nodes: int) -> list[Row]:
    """Rows of tries, longest first, each filled up to `row_nodes` (first fit in decreasing order).

    Tries that begin alike stand together, and what all of a row have in common is read once for the row.
    """
    rows = [_together(found) for found in _fill(_kin(placed, row_nodes), row_nodes)]
    return sorted(rows, key=lambda row: -len(row))


def _kin(placed: list[Placed], row_nodes: int) -> list[Row]:
    """The tries, those neighbours in the order of their tokens joined that share enough and fit into one row."""
    found: list[Row] = []
    for item in sorted(placed, key=_by_tokens):
        row = Row.of(item)
        shared = _in_common([found[-1], row]) if found else 0
        if shared >= KIN_TOKENS and len(found[-1]) + len(row) - shared <= row_nodes:
            found[-1] = _together([found[-1], row])
        else:
            found.append(row)
    return found


def _by_tokens(item: Placed) -> tuple[bytes, bytes]:
    """Puts equal beginnings side by side, whatever order the documents come in."""
    tokens = item.tree.tokens.tobytes()
    return tokens[: item.tree.trunk * item.tree.tokens.itemsize], tokens


def _fill(rows: list[Row], row_nodes: int) -> list[list[Row]]:
    filled: list[list[Row]] = []
    room: list[int] = []
    first_open = 0
    for row in sorted(rows, key=lambda row: -len(row)):
        while first_open < len(filled) and room[first_open] <= 0:
            first_open += 1
        for index in range(first_open, len(filled)):
            if len(row) <= room[index]:
                filled[index].append(row)
                room[index] -= len(row)
                break
        else:
            filled.append([row])
            room.append(row_nodes - len(row))
    return filled


def _together(rows: list[Row]) -> Row:
    """One row of several."""
    if len(rows) == 1:
        return rows[0]
    tree = graft([row.tree for row in rows], _in_common(rows))
    return Row(tree, tuple(item for row in rows for item in row.items))


def _in_common(rows: list[Row]) -> int:
    """Tokens with which all of them begin, of their trunks."""
    first = rows[0].tree
    return min(first.trunk, *(min(row.tree.trunk, shared_length(first.tokens, row.tree.tokens)) for row in rows[1:]))


def plain_rows(placed: list[Placed]) -> list[Row]:
    """Rows of one text each, longest first, so that neighbours need little padding; none begins another one."""
    single = [Placed(branch, item.slot) for item in placed for branch in branches(item.tree)]
    return [Row.of(item) for item in sorted(single, key=lambda p: (-len(p.tree), p.tree.tokens.tobytes()))]


def rows_by_length(placed: list[Placed]) -> list[Row]:
    """Rows of one text each, shortest first, one for every request."""
    single = [Placed(chain, item.slot + i) for item in placed for i, chain in enumerate(chains(item.tree))]
    return [Row.of(item) for item in sorted(single, key=lambda p: (len(p.tree), p.tree.tokens.tobytes()))]


def smaller_rows(rows: list[Row], row_nodes: int) -> list[Row]:
    """The same documents, those of rows longer than `row_nodes` with fewer of them to a row, longest rows first.

    Where no such row holds several, all stay as they are.
    """
    wide = [row for row in rows if len(row) > row_nodes and len(row.items) > 1]
    if not wide:
        return rows
    others = [row for row in rows if len(row) <= row_nodes or len(row.items) == 1]
    again = pack([item for row in wide for item in row.items], row_nodes)
    return sorted([*again, *others], key=lambda row: -len(row))


def fitting(rows: list[Row], batch_tokens: int, *, by_length: bool = False) -> int:
    """How many of `rows` make one batch as wide as the first of them; with `by_length` all of them are that long."""
    widest = len(rows[0])
    count = max(1, min(len(rows), batch_tokens // widest))
    return sum(len(row) == widest for row in rows[:count]) if by_length else count


def assemble(rows: list[Row]) -> Batch:
    """One batch of rows, the first of which is the longest."""
    width = len(rows[0])
    tokens = np.zeros((len(rows), width), np.int64)
    depth = np.zeros((len(rows), width), np.int64)
    end = np.tile(np.arange(1, width + 1), (len(rows), 1))
    seen = np.cumsum([0, *(len(row.tree.rows) for row in rows)])
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row.tree.tokens
        depth[index, : len(row)] = row.tree.depth
        end[index, : len(row)] = row.tree.end
    return Batch(
        tokens,
        depth,
        end,
        predicting=_joined([row.tree.rows + index * width for index, row in enumerate(rows)]),
        entry_row=_joined([row.tree.entry_row + before for row, before in zip(rows, seen[:-1], strict=True)]),
        entry_target=_joined([row.tree.entry_target for row in rows]),
        entry_slot=_joined([row.tree.entry_request for row in rows]),
        causal=all(row.tree.is_chain for row in rows),
    )


def _joined(parts: list[Tokens]) -> NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64)
