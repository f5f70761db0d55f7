"""What a recipe says of the candidate's vocabulary: the donor's, or an aligned one."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import ParentsDoNotFitError, RecipeError
from core.model import Header
from core.noun import digest_of
from core.recipe.resolved import AlignedVocabulary, ResolvedSource
from core.recipe.short import Tokenizer


def aligned_vocabulary(
    wanted: str | Tokenizer | None, sources: Sequence[ResolvedSource], headers: Sequence[Header]
) -> AlignedVocabulary | None:
    """How the sources' vocabularies are aligned; None where they are to be, or are, the same.

    Args:
        wanted: what the recipe says.
        sources: its sources.
        headers: of the models among them, in the same order.

    Raises:
        RecipeError: recipes among the sources, whose vocabularies cannot be aligned.
        ParentsDoNotFitError: a source without tokenizer, or of a family whose embedding is not known.
    """
    inner = [source.recipe for source in sources if source.recipe is not None]
    if any(recipe.vocabulary is not None for recipe in inner) or (inner and isinstance(wanted, Tokenizer)):
        raise RecipeError(
            "vocabularies are aligned between models, but here a recipe is among the sources, or aligns its own inside "
            "another: export the inner recipe and name the result",
            where="tokenizer",
        )
    if not isinstance(wanted, Tokenizer):
        return None
    digests = tuple(header.tokenizer_digest for header in headers if header.tokenizer_digest is not None)
    if len(digests) < len(headers) or not all(header.architecture.known for header in headers):
        raise ParentsDoNotFitError(
            "vocabularies are aligned by their tokenizers, in families whose embedding is known: give every source its "
            "tokenizer.json, or leave out `tokenizer`",
            where="tokenizer",
        )
    multiple, sizes = wanted.pad_to_multiple_of, {header.vocab_size for header in headers}
    if len(set(digests)) == len(sizes) == 1 and min(sizes) % (multiple or 1) == 0:
        return None
    assert wanted.mode != "donor"  # A recipe writes that as the name of the donor.
    return AlignedVocabulary(mode=wanted.mode, tokenizers=digests, pad_to_multiple_of=multiple)


def joint_digest(vocabulary: AlignedVocabulary | None, tokenizers: Sequence[str | None], donor: int) -> str | None:
    """sha256 over the candidate's tokenizer: the donor's own, or those that a union is made of."""
    if vocabulary is None or vocabulary.mode == "align":
        return tokenizers[donor]
    return digest_of([vocabulary.mode, vocabulary.version, donor, list(tokenizers)])
