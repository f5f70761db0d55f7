"""Vocabularies: what a tokenizer's ids stand for, read from its `tokenizer.json` without a tokenizer library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.checkpoint import read_json, tokenizer_digest
from core.errors import CheckpointError, MissingCheckpointError
from core.noun import canonical_json
from core.segmentation import segmentation

FILE = "tokenizer.json"
#: An id at or above this is taken for damage.
MAX_TOKENS = 1 << 22


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one `tokenizer.json`.

    Attributes:
        digest: as `core.model.Header.tokenizer_digest`.
        ids: the id of every token, in the order of the ids. A text that stands under two ids is known by the one
            that encoding gives.
        added: those that are found in a text before it is split, each with its entry in the file.
        parsed: the whole file.
    """

    digest: str
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]
    parsed: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`BPE`, `Unigram`, ..."""
        return str(self.parsed["model"].get("type"))

    @cached_property
    def rules(self) -> dict[str, Any]:
        """How a text is cut into what the vocabulary is looked up for, see `core.segmentation`."""
        return segmentation(self.parsed)

    @cached_property
    def merges(self) -> tuple[tuple[str, str], ...]:
        """Pairs that are joined, the first ones first (BPE)."""
        return tuple(_pair(merge) for merge in self.parsed["model"].get("merges") or ())

    @cached_property
    def special(self) -> frozenset[str]:
        """Tokens that no text stands for."""
        return frozenset(token for token, entry in self.added.items() if entry.get("special"))


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Raises:
        MissingCheckpointError: it has no `tokenizer.json`.
        CheckpointError: that file is damaged.
    """
    if not (folder / FILE).is_file():
        raise MissingCheckpointError(
            f"vocabularies are compared by {FILE!r}, but {folder.name!r} has none: open it with AutoTokenizer and save "
            "it, which writes one",
            where=FILE,
        )
    parsed = read_json(folder / FILE)
    added = {str(entry.get("content")): entry for entry in _entries(parsed, folder)}
    numbered = [*_tokens(parsed, folder), *((token, entry.get("id")) for token, entry in added.items())]
    for token, number in numbered:
        if not isinstance(token, str) or type(number) is not int or not 0 <= number < MAX_TOKENS:
            raise _damaged(folder, f"token {token!r} has id {number!r}")
    ids = dict(sorted(dict(numbered).items(), key=lambda pair: pair[1]))
    found = Vocabulary(str(tokenizer_digest(folder)), ids, added, parsed)
    try:
        _ = found.merges
    except (ValueError, TypeError) as error:
        raise _damaged(folder, f"its merges are of another form ({str(error)[:100]})") from error
    return found


def difference(left: Vocabulary, right: Vocabulary) -> str | None:
    """In which way two vocabularies differ, or what cuts a text for them, for people; None where they are equal."""
    if left.digest == right.digest:
        return odd_rule(left, right)
    ours, theirs = ({number: token for token, number in v.ids.items()} for v in (left, right))
    sizes = f"they have {len(ours)} and {len(theirs)} tokens"
    for number in sorted(ours.keys() | theirs.keys()):
        if ours.get(number) != theirs.get(number):
            return f"{sizes}, and id {number} is {_said(ours.get(number))} and {_said(theirs.get(number))}"
    return f"{sizes}, all of them equal, but they are put together by other merges"


def odd_rule(left: Vocabulary, right: Vocabulary) -> str | None:
    """The first rule in which two tokenizers cut a text in different ways, for people; None where there is none."""
    for key in sorted(left.rules.keys() | right.rules.keys()):
        if left.rules.get(key) != right.rules.get(key):
            values = " and ".join(canonical_json(rules.get(key))[:200] for rules in (left.rules, right.rules))
            return f"{key!r} of the tokenizers is {values}"
    return None


def _pair(merge: Any) -> tuple[str, str]:
    """Both halves of a merge, whichever way it is written.

    Raises:
        ValueError, TypeError: it is no merge.
    """
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(left, str) or not isinstance(right, str):
        raise TypeError(merge)
    return left, right


def _tokens(parsed: Mapping[str, Any], folder: Path) -> Iterator[tuple[Any, Any]]:
    model = parsed.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    elif isinstance(vocabulary, list) and all(isinstance(entry, list) and entry for entry in vocabulary):
        yield from ((entry[0], number) for number, entry in enumerate(vocabulary))  # Unigram: pairs with a score.
    else:
        raise _damaged(folder, "its model has no vocabulary")


def _entries(parsed: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    added = parsed.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        raise _damaged(folder, "its added_tokens are of another form")
    return added


def _said(token: str | None) -> str:
    return "no token" if token is None else repr(token)


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{FILE!r} of {folder.name!r} is damaged: {reason}; copy it again", where=FILE)
