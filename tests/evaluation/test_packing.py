import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.packing import assemble, find_stems, fitting, pack, place, plain_rows, rows_by_length
from evaluation.trees import TokenRequest, grow


def tree(*texts, scored=1):
    """The trie of texts whose last `scored` tokens are predicted."""
    return grow([TokenRequest(np.array(text[:-1], np.int32), np.array(text[-scored:], np.int32)) for text in texts])


def lengths(rows):
    return [[len(item.tree) for item in row.items] for row in rows]


def chain(length, first=None):
    """An unbranched document; its first token is its own unless given."""
    return tree([1000 + length if first is None else first, *range(1, length + 1)])


def test_rows_are_filled_with_the_longest_that_still_fits():
    placed = place([chain(n) for n in (3, 9, 4, 2, 12, 1)])
    assert lengths(pack(placed, 10)) == [[12], [9, 1], [4, 3, 2]]
    assert lengths(pack(placed, 0)) == [[12], [9], [4], [3], [2], [1]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(0, 60))
def test_every_document_is_in_one_row_and_no_row_of_several_is_too_full(sizes, nodes):
    rows = pack(place([chain(size) for size in sizes]), nodes)
    assert sorted(item.slot for row in rows for item in row.items) == list(range(len(sizes)))
    assert all(len(row.items) == 1 or len(row) <= nodes for row in rows)


def test_plain_rows_come_longest_first_and_texts_that_begin_another_have_none():
    documents = place([tree([1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 4, 6]), tree([7, 8, 9, 9])])
    rows = plain_rows(documents)
    assert [row.tree.tokens.tolist() for row in rows] == [[1, 2, 3, 4], [7, 8, 9]]
    assert [row.tree.entry_request.tolist() for row in rows] == [[0, 1, 2], [3]]
    assert rows[0].tree.rows[rows[0].tree.entry_row].tolist() == [2, 1, 3]


def test_rows_by_length_have_one_for_every_request_shortest_first_and_batches_of_equal_ones():
    rows = rows_by_length(place([tree([1, 2, 3, 4], [1, 2, 3, 4]), tree([5, 6], [7, 8], [9, 9, 9])]))
    assert lengths(rows) == [[1], [1], [2], [3], [3]]
    assert [row.items[0].slot for row in rows] == [2, 3, 4, 0, 1]
    assert [fitting(rows[i:], 100, by_length=True) for i in (0, 2, 3)] == [2, 1, 2]


def test_a_batch_holds_as_many_rows_of_the_widest_as_the_budget():
    rows = pack(place([chain(n) for n in (8, 5, 5, 2)]), 0)
    assert [fitting(rows, budget) for budget in (1, 15, 16, 25, 1000)] == [1, 1, 2, 3, 4]


def test_a_batch_counts_ends_in_its_rows_and_predictions_over_all_of_them():
    documents = place([tree([1, 2, 3, 4], [1, 2, 5, 6]), tree([7, 6, 9]), tree([7, 8, 6])])
    batch = assemble(pack(documents, 6))
    assert batch.tokens.tolist() == [[1, 2, 3, 5, 7, 6], [7, 8, 0, 0, 0, 0]]
    assert batch.depth.tolist() == [[0, 1, 2, 2, 0, 1], [0, 1, 0, 0, 0, 0]]
    assert batch.end.tolist() == [[4, 4, 3, 4, 6, 6], [2, 2, 3, 4, 5, 6]]
    assert batch.predicting.tolist() == [2, 3, 5, 7]
    assert batch.entry_row.tolist() == [0, 1, 2, 3]
    assert batch.entry_target.tolist() == [4, 6, 9, 6]
    assert batch.entry_slot.tolist() == [0, 1, 2, 3]
    assert not batch.causal
    assert assemble(pack(documents[1:], 0)).causal


def test_documents_that_begin_alike_share_a_row_and_what_they_begin_with():
    twins = [tree([5, *range(10, 20), n, 1, 2], [5, *range(10, 20), n, 3, 4]) for n in (50, 51)]
    other = tree([5, 60, 61, 62], [5, 60, 61, 63])
    (row,) = pack(place([twins[0], other, twins[1]]), 24)
    assert sorted(item.slot for item in row.items) == [0, 2, 4]
    # One beginning of one token for all three, and one of ten more for the twins.
    assert len(row) == 1 + 10 + 2 * 3 + 2
    assert sorted(row.tree.entry_request.tolist()) == [0, 1, 2, 3, 4, 5]
    assert row.tree.depth.tolist() == [0, *range(1, 11), *[11, 12, 12] * 2, 1, 2]


def test_documents_that_share_little_are_joined_only_where_they_share_a_row_anyway():
    documents = place([tree([5, 6, n, *range(20)]) for n in (50, 51)])
    assert [len(row) for row in pack(documents, 30)] == [22, 22]
    assert [len(row) for row in pack(documents, 44)] == [42]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=14), min_size=1, max_size=4), max_size=12),
    st.integers(0, 40),
)
def test_whatever_is_joined_every_request_is_still_spelt_by_its_ancestors(texts, nodes):
    documents = [tree(*found) for found in texts]
    wanted = {(slot, target): read for item in place(documents) for slot, target, read in spelt(item.tree, item.slot)}
    found = {(slot, target): read for row in pack(place(documents), nodes) for slot, target, read in spelt(row.tree, 0)}
    assert found == wanted


def spelt(joined, slot):
    """Slot, target and what is read before it, for every prediction."""
    for row, target, request in zip(joined.entry_row, joined.entry_target, joined.entry_request, strict=True):
        node = joined.rows[row]
        path = [j for j in range(node + 1) if node < joined.end[j]]
        assert joined.depth[path].tolist() == list(range(len(path)))
        yield int(request) + slot, int(target), joined.tokens[path].tolist()


SHARED = list(range(100, 140))


def test_documents_that_share_a_long_beginning_stand_on_one_stem():
    documents = place([tree([*SHARED, n, 1, 2], [*SHARED, n, 3, 4]) for n in range(4)] + [chain(8)])
    (stem,), rest = find_stems(documents, None)
    assert stem.tokens.tolist() == SHARED
    assert [item.slot for item in stem.crown] == [0, 2, 4, 6]
    assert [item.tree.tokens.tolist() for item in stem.crown] == [[n, 1, 3] for n in range(4)]
    assert stem.crown[0].tree.depth.tolist() == [40, 41, 41]
    assert [item.slot for item in rest] == [8]


def test_few_documents_or_long_trunks_of_their_own_make_no_common_stem():
    few = [tree([*SHARED, n, 1], [*SHARED, n, 2]) for n in range(3)]
    assert find_stems(place(few), None)[0] == []
    own = [tree([*SHARED, *[n] * 60, 1, 1], [*SHARED, *[n] * 60, 2, 1]) for n in range(4)]
    assert find_stems(place(own), None)[0] == []


def test_a_branching_document_with_a_long_trunk_stands_alone_but_a_single_text_needs_no_stem():
    documents = place([tree([*SHARED, 1, 2], [*SHARED, 3, 4]), tree([*SHARED, 5]), tree([9, 8, 7], [9, 8, 6])])
    stems, rest = find_stems(documents, 30)
    # The trunk ends before the first node that predicts or branches.
    assert [stem.tokens.tolist() for stem in stems] == [SHARED]
    assert [item.slot for item in rest] == [2, 3]
    assert find_stems(documents, 41)[0] == []


def test_a_stem_ends_where_something_is_predicted():
    (stem,), _ = find_stems(place([tree([*SHARED, 1, 2], [*SHARED, 3, 4], scored=4)]), 1)
    assert stem.tokens.tolist() == SHARED[:37]
    assert stem.crown[0].tree.rows.tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=4), min_size=2, max_size=12), st.randoms())
def test_the_order_that_documents_come_in_changes_no_row(texts, shuffled):
    trees = [tree(text, [*text, 4]) for text in texts]
    another = list(trees)
    shuffled.shuffle(another)
    for rows in (rows_by_length, plain_rows, lambda placed: pack(placed, 9)):
        read = [[row.tree.tokens.tolist() for row in rows(place(order))] for order in (trees, another)]
        assert read[0] == read[1]
