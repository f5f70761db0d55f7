"""The requests of one document as a trie of tokens, so that what its choices share is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


class TokenRequest(NamedTuple):
    """One continuation to score.

    Attributes:
        read: (t,) the tokens the model reads: context and continuation without its last token, truncated on the left.
        continuation: (c,) the tokens scored, c <= t; the last c positions of `read` predict them.
    """

    read: Tokens
    continuation: Tokens


@dataclass(frozen=True)
class TokenTree:
    """A trie in depth-first order, with the places where something is predicted.

    Node j is an ancestor of node i, or i itself, exactly when j <= i < end[j].

    Attributes:
        tokens: (n,) token of each node.
        depth: (n,) distance from the root: the token's position in its text.
        end: (n,) one past the last node of the subtree.
        rows: (r,) nodes that predict a continuation token, ascending.
        entry_row: (m,) index into `rows` of each prediction.
        entry_target: (m,) the token predicted there.
        entry_request: (m,) the request it belongs to.
        requests: how many requests there are.
    """

    tokens: Tokens
    depth: Tokens
    end: Tokens
    rows: Tokens
    entry_row: Tokens
    entry_target: Tokens
    entry_request: Tokens
    requests: int

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether no node branches, so that an ordinary causal mask is right."""
        return len(self.depth) == 0 or int(self.depth[-1] - self.depth[0]) == len(self.depth) - 1

    @cached_property
    def trunk(self) -> int:
        """How many nodes stand above all others and before everything that predicts: one text, read for its sake."""
        shared = np.nonzero(self.end != len(self.end))[0]
        return min(int(self.rows[0]), int(shared[0]) if len(shared) else len(self.end))

    def above(self, start: int) -> TokenTree:
        """The forest that stands on the first `start` nodes of the trunk; depth still counts from the root."""
        return replace(
            self,
            tokens=self.tokens[start:],
            depth=self.depth[start:],
            end=self.end[start:] - start,
            rows=self.rows - start,
        )


def graft(trees: Sequence[TokenTree], shared: int) -> TokenTree:
    """One trie, or forest, of several whose trunks have their first `shared` tokens in common.

    Requests keep their numbers, which must differ from tree to tree.
    """
    crowns = [tree.above(shared) for tree in trees]
    starts = np.cumsum([shared, *map(len, crowns)])
    seen = np.cumsum([0, *(len(crown.rows) for crown in crowns)])

    def joined(first: list[Tokens], parts: Iterable[Tokens]) -> Tokens:
        return np.concatenate([*first, *parts]).astype(np.int32)

    return TokenTree(
        tokens=joined([trees[0].tokens[:shared]], (crown.tokens for crown in crowns)),
        depth=joined([trees[0].depth[:shared]], (crown.depth for crown in crowns)),
        end=joined(
            [np.full(shared, starts[-1], np.int32)],
            (crown.end + start for crown, start in zip(crowns, starts[:-1], strict=True)),
        ),
        rows=joined([], (crown.rows + start for crown, start in zip(crowns, starts[:-1], strict=True))),
        entry_row=joined([], (crown.entry_row + first for crown, first in zip(crowns, seen[:-1], strict=True))),
        entry_target=joined([], (crown.entry_target for crown in crowns)),
        entry_request=joined([], (crown.entry_request for crown in crowns)),
        requests=max(tree.requests for tree in trees),
    )


def grow(requests: Sequence[TokenRequest]) -> TokenTree:
    """The trie of `requests`; equal beginnings share nodes, equal requests share all of them."""
    reads = [request.read.tolist() for request in requests]
    path, before = np.empty(0, np.int32), np.empty(0, np.int32)
    tokens: list[Tokens] = []
    depth: list[Tokens] = []
    end = np.empty(sum(map(len, reads)), np.int32)
    paths: list[Tokens] = [path] * len(requests)
    size = 0
    # In sorted order the longest beginning shared with any earlier request is the one shared with the last.
    for index in sorted(range(len(requests)), key=reads.__getitem__):
        read = requests[index].read
        shared = shared_length(before, read)
        end[path[shared:]] = size
        path = np.concatenate([path[:shared], np.arange(size, size + len(read) - shared, dtype=np.int32)])
        tokens.append(read[shared:])
        depth.append(np.arange(shared, len(read), dtype=np.int32))
        size, before, paths[index] = size + len(read) - shared, read, path
    end[path] = size
    nodes = np.concatenate([p[len(p) - len(r.continuation) :] for p, r in zip(paths, requests, strict=True)])
    rows, entry_row = np.unique(nodes, return_inverse=True)
    return TokenTree(
        tokens=np.concatenate(tokens),
        depth=np.concatenate(depth),
        end=end[:size].copy(),  # A view would keep room for every text in full.
        rows=rows.astype(np.int32),
        entry_row=entry_row.astype(np.int32),
        entry_target=np.concatenate([r.continuation for r in requests]),
        entry_request=np.repeat(np.arange(len(requests), dtype=np.int32), [len(r.continuation) for r in requests]),
        requests=len(requests),
    )


def chains(tree: TokenTree) -> list[TokenTree]:
    """The requests of `tree` as one unbranched tree each, in request order."""
    return [grow([request]) for request in _requests(tree)]


def branches(tree: TokenTree) -> list[TokenTree]:
    """The texts of `tree` that no other text continues, as unbranched trees which keep the numbers of the requests.

    A request that is the beginning of others is answered by one of them.
    """
    leaves = np.nonzero(tree.end == np.arange(1, len(tree) + 1))[0]
    last = np.zeros(tree.requests, np.int64)
    np.maximum.at(last, tree.entry_request, tree.rows[tree.entry_row])
    # Depth first, what a node leads to begins right after it: the next leaf is one of its own.
    leaf = np.searchsorted(leaves, last)[tree.entry_request]
    return [_branch(tree, int(end), np.nonzero(leaf == index)[0]) for index, end in enumerate(leaves)]


def _branch(tree: TokenTree, leaf: int, entries: NDArray[np.int64]) -> TokenTree:
    path = np.nonzero(tree.end[: leaf + 1] > leaf)[0]
    length = np.arange(len(path), dtype=np.int32)
    rows, entry_row = np.unique(tree.depth[tree.rows[tree.entry_row[entries]]], return_inverse=True)
    return TokenTree(
        tokens=tree.tokens[path],
        depth=length,
        end=np.full(len(path), len(path), np.int32),
        rows=rows,
        entry_row=entry_row.astype(np.int32),
        entry_target=tree.entry_target[entries],
        entry_request=tree.entry_request[entries],
        requests=tree.requests,
    )


def _requests(tree: TokenTree) -> list[TokenRequest]:
    found = []
    for index in range(tree.requests):
        mine = tree.entry_request == index
        last = int(tree.rows[tree.entry_row[mine]][-1])
        path = np.nonzero(tree.end[: last + 1] > last)[0]
        found.append(TokenRequest(tree.tokens[path], tree.entry_target[mine]))
    return found


def shared_length(a: Tokens, b: Tokens) -> int:
    """How many tokens `a` and `b` have in common from the beginning."""
    length = min(len(a), len(b))
    differ = np.nonzero(a[:length] != b[:length])[0]
    return int(differ[0]) if len(differ) else length
