"""One order of rows for models of different vocabularies, and the tokenizer that goes with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import ParentsDoNotFitError
from core.vocabulary import Vocabulary, odd_rule

#: Tokenizer models whose vocabulary can grow without another reading of known text.
GROWING = ("BPE", "WordLevel")
Mode = Literal["align", "union"]


@dataclass(frozen=True)
class Alignment:
    """One order of rows for the embeddings and output matrices of several sources.

    Attributes:
        tokens: of every row; None where a row has no token.
        places: by source, its own row for every row of the result; -1 where it has none.
        donor: the source whose ids stay as they are.
    """

    tokens: tuple[str | None, ...]
    places: tuple[tuple[int, ...], ...]
    donor: int

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return len(self.tokens)

    def ids(self) -> dict[str, int]:
        """The id of every token."""
        return {token: row for row, token in enumerate(self.tokens) if token is not None}


def align(
    mode: Mode, sources: Sequence[tuple[Vocabulary, int]], donor: int = 0, pad_to_multiple_of: int | None = None
) -> Alignment:
    """One order for the rows of all sources.

    The donor's ids stay as they are, and so do its rows that have no token. `union` adds the tokens that only other
    sources have, in the order of the sources and then of their ids, from the first id behind the donor's on.

    Args:
        mode: whether tokens that the donor lacks are added.
        sources: of each the vocabulary and the number of rows of its embedding.
        donor: position of the donor.
        pad_to_multiple_of: rows without token are added up to a multiple of this.

    Raises:
        ParentsDoNotFitError: tokenizers that read a text in different ways; says in which.
    """
    _check(mode, [vocabulary for vocabulary, _ in sources], donor)
    mine, rows = sources[donor]
    tokens: list[str | None] = [None] * max(rows, 1 + max(mine.ids.values(), default=-1))
    for token, number in mine.ids.items():
        tokens[number] = token
    if mode == "union":
        _extend(tokens, mine, sources)
    tokens += [None] * (-len(tokens) % (pad_to_multiple_of or 1))
    places = tuple(
        tuple(_place(token, row, source, number == donor) for row, token in enumerate(tokens))
        for number, source in enumerate(sources)
    )
    return Alignment(tuple(tokens), places, donor)


def union_tokenizer(vocabularies: Sequence[Vocabulary], alignment: Alignment) -> dict[str, Any]:
    """The `tokenizer.json` of a union: the donor's, extended.

    New merges rank behind the donor's, so a text is cut as the donor cuts it unless a new merge applies to what
    remains. Every added token also stands in the model's vocabulary: the library numbers those anew that do not.

    Args:
        vocabularies: of the sources, as they were aligned.
        alignment: their union.
    """
    donor = vocabularies[alignment.donor]
    others = [v for number, v in enumerate(vocabularies) if number != alignment.donor]
    ids = alignment.ids()
    made: dict[str, Any] = json.loads(json.dumps(donor.parsed))
    made["model"]["vocab"] |= {token: number for token, number in ids.items() if token not in made["model"]["vocab"]}
    added = {token: dict(entry) for token, entry in donor.added.items()}
    for other in others:
        for token, entry in other.added.items():
            if token in ids:
                added.setdefault(token, {**entry, "id": ids[token]})
    made["added_tokens"] = sorted(added.values(), key=lambda entry: int(entry["id"]))
    if donor.kind == "BPE":
        made["model"]["merges"] = _merges(donor, others, ids)
    return made


def _extend(tokens: list[str | None], mine: Vocabulary, sources: Sequence[tuple[Vocabulary, int]]) -> None:
    """Number the tokens that the donor lacks; its rows without token behind its last id are taken first."""
    known, free = set(mine.ids), 1 + max(mine.ids.values(), default=-1)
    for vocabulary, rows in sources:
        for token, number in vocabulary.ids.items():
            if token in known or number >= rows:
                continue
            tokens[free : free + 1] = [token]
            known.add(token)
            free += 1


def _place(token: str | None, row: int, source: tuple[Vocabulary, int], is_donor: bool) -> int:
    vocabulary, rows = source
    number = vocabulary.ids.get(token, -1) if token is not None else row if is_donor else -1
    return number if number < rows else -1


def _check(mode: Mode, vocabularies: Sequence[Vocabulary], donor: int) -> None:
    """Equal token texts mean equal things only where a text is read in one way."""
    mine = vocabularies[donor]
    if mode == "union" and mine.kind not in GROWING:
        raise ParentsDoNotFitError(
            f"a union needs a tokenizer of {' or '.join(GROWING)}, but the donor's is {mine.kind!r}, whose vocabulary "
            "cannot grow: use mode 'align'",
            where="tokenizer",
        )
    for other in vocabularies:
        rule = odd_rule(mine, other)
        if rule is not None:
            raise ParentsDoNotFitError(
                f"vocabularies can be aligned where a text is read in one way, but {rule}: use models with one kind of "
                "tokenizer",
                where="tokenizer",
            )
        odd = (mine.special & (other.ids.keys() - other.added.keys())) | (
            other.special & (mine.ids.keys() - mine.added.keys())
        )
        if odd:
            raise ParentsDoNotFitError(
                f"token {min(odd)!r} is special in one tokenizer and a common piece of text in another: list it in "
                "'added_tokens' of both, or use other models",
                where="tokenizer",
            )


def _merges(donor: Vocabulary, others: Sequence[Vocabulary], ids: Mapping[str, int]) -> list[Any]:
    """The donor's merges, then those that only others have, as far as their tokens are there."""
    prefix = len(str(donor.parsed["model"].get("continuing_subword_prefix") or ""))
    known, new = set(donor.merges), []
    for other in others:
        for left, right in other.merges:
            if (left, right) not in known and {left, right, left + right[prefix:]} <= ids.keys():
                known.add((left, right))
                new.append((left, right))
    mine = donor.parsed["model"].get("merges") or []
    # The older form, one text with a blank, cannot hold a token with a blank in it.
    if mine and isinstance(mine[0], str) and not any(" " in part for pair in new for part in pair):
        return [*mine, *(" ".join(pair) for pair in new)]
    return [list(pair) for pair in (*donor.merges, *new)]
