import pytest

from core.alignment import align, union_tokenizer
from core.errors import ParentsDoNotFitError
from core.vocabulary import Vocabulary


def vocabulary(*tokens, special=(), added=(), merges=(), ids=None, **model) -> Vocabulary:
    """Tokens numbered in their order; `special` and `added` ones among them."""
    numbered = ids or {token: number for number, token in enumerate(tokens)}
    entries = {t: {"id": numbered[t], "content": t, "special": t in special} for t in (*special, *added)}
    pieces = {t: n for t, n in numbered.items() if t not in entries}
    parsed = {
        "model": {"type": "BPE", "vocab": pieces, "merges": list(merges), **model},
        "added_tokens": list(entries.values()),
    }
    return Vocabulary(repr(numbered), numbered, entries, parsed)


DONOR = vocabulary("<s>", "a", "b", "ab", special=["<s>"])
OTHER = vocabulary("<s>", "b", "c", "a", "bc", special=["<s>"])


def test_a_union_is_the_donor_and_then_what_others_add_in_their_order():
    found = align("union", [(DONOR, 4), (OTHER, 5), (vocabulary("z", "c", "y"), 3)])
    assert found.tokens == ("<s>", "a", "b", "ab", "c", "bc", "z", "y")
    assert found.places == ((0, 1, 2, 3, -1, -1, -1, -1), (0, 3, 1, -1, 2, 4, -1, -1), (-1, -1, -1, -1, 1, -1, 0, 2))
    assert found.rows == 8


def test_the_donor_may_stand_anywhere_but_new_tokens_follow_the_order_of_the_sources():
    found = align("union", [(OTHER, 5), (vocabulary("z", "c"), 2), (DONOR, 4)], donor=2)
    assert found.tokens == ("<s>", "a", "b", "ab", "c", "bc", "z")


def test_align_has_the_donors_tokens_only():
    found = align("align", [(DONOR, 4), (OTHER, 5)])
    assert found.tokens == ("<s>", "a", "b", "ab") and found.places[1] == (0, 3, 1, -1)


def test_spare_rows_of_the_donor_are_numbered_before_new_ones_are_made():
    found = align("union", [(DONOR, 5), (OTHER, 5)])
    assert found.tokens == ("<s>", "a", "b", "ab", "c", "bc")
    assert found.places[0] == (0, 1, 2, 3, -1, -1)
    kept = align("union", [(DONOR, 8), (OTHER, 5)])
    assert kept.tokens == ("<s>", "a", "b", "ab", "c", "bc", None, None)
    assert (kept.places[0][6:], kept.places[1][6:]) == ((6, 7), (-1, -1))


def test_ids_that_the_donor_leaves_out_keep_its_rows():
    holed = vocabulary(ids={"a": 0, "b": 3})
    found = align("union", [(holed, 4), (vocabulary("c"), 1)])
    assert found.tokens == ("a", None, None, "b", "c") and found.places[0] == (0, 1, 2, 3, -1)


def test_tokens_without_a_row_are_not_taken_from_others_and_stay_with_the_donor():
    found = align("union", [(DONOR, 3), (OTHER, 4)])
    assert found.tokens == ("<s>", "a", "b", "ab", "c")
    assert [places[3] for places in found.places] == [-1, -1]


@pytest.mark.parametrize(("multiple", "rows"), [(None, 6), (1, 6), (4, 8), (6, 6), (64, 64)])
def test_rows_are_padded_to_a_multiple(multiple, rows):
    found = align("union", [(DONOR, 4), (OTHER, 5)], pad_to_multiple_of=multiple)
    assert found.rows == rows and found.tokens[6:] == (None,) * (rows - 6)


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
def test_a_vocabulary_that_cannot_grow_can_only_be_aligned(kind):
    pair = [(vocabulary("a", type=kind), 1), (vocabulary("b", type=kind), 1)]
    with pytest.raises(ParentsDoNotFitError, match="use mode 'align'"):
        align("union", pair)
    assert align("align", pair).tokens == ("a",)


def test_the_unions_tokenizer_ranks_new_merges_last_and_numbers_every_added_token():
    donor = vocabulary("a", "b", "ab", "<s>", merges=[["a", "b"]], special=["<s>"])
    other = vocabulary("b", "c", "bc", "abc", "<t>", "a", "ab", merges=["b c", "a b", "ab c", "x y"], special=["<t>"])
    pair = [donor, other]
    made = union_tokenizer(pair, align("union", [(v, len(v.ids)) for v in pair]))
    assert made["model"]["vocab"] == {"a": 0, "b": 1, "ab": 2, "<s>": 3, "c": 4, "bc": 5, "abc": 6, "<t>": 7}
    assert made["model"]["merges"] == [["a", "b"], ["b", "c"], ["ab", "c"]]
    assert [(entry["content"], entry["id"]) for entry in made["added_tokens"]] == [("<s>", 3), ("<t>", 7)]
    assert "abc" not in donor.parsed["model"]["vocab"]


def test_merges_keep_the_donors_form_unless_a_token_has_a_blank():
    donor = vocabulary("a", "b", "ab", merges=["a b"])
    plain, blank = vocabulary("a", "c", "ac", merges=[["a", "c"]]), vocabulary("a", " ", "a ", merges=[["a", " "]])
    for other, merges in ((plain, ["a b", "a c"]), (blank, [["a", "b"], ["a", " "]])):
        pair = [donor, other]
        made = union_tokenizer(pair, align("union", [(v, len(v.ids)) for v in pair]))
        assert made["model"]["merges"] == merges


def test_prefixed_pieces_are_joined_without_their_prefix():
    donor = vocabulary("a", "##b", merges=[], continuing_subword_prefix="##")
    other = vocabulary("a", "##b", "ab", merges=["a ##b"], continuing_subword_prefix="##")
    made = union_tokenizer([donor, other], align("union", [(donor, 2), (other, 3)]))
    assert made["model"]["merges"] == [["a", "##b"]]
