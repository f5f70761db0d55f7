import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.trees import TokenRequest, branches, chains, grow, shared_length


def request(read, scored):
    """A request whose last `scored` positions predict tokens 100, 101, ..."""
    return TokenRequest(np.array(read, np.int32), np.arange(100, 100 + scored, dtype=np.int32))


def requests():
    texts = st.lists(st.integers(0, 2), min_size=1, max_size=7)
    return st.lists(
        texts.flatmap(lambda read: st.integers(1, len(read)).map(lambda n: request(read, n))), min_size=1, max_size=6
    )


def test_two_choices_share_their_beginning():
    tree = grow([request([5, 6, 7], 1), request([5, 6, 8, 9], 2)])
    assert tree.tokens.tolist() == [5, 6, 7, 8, 9]
    assert tree.depth.tolist() == [0, 1, 2, 2, 3]
    assert tree.end.tolist() == [5, 5, 3, 5, 5]
    assert tree.rows.tolist() == [2, 3, 4]
    assert (tree.entry_row.tolist(), tree.entry_target.tolist()) == ([0, 1, 2], [100, 100, 101])
    assert tree.entry_request.tolist() == [0, 1, 1]


def test_equal_requests_share_every_node():
    tree = grow([request([1, 2], 1), request([1, 2], 1), request([1], 1)])
    assert tree.tokens.tolist() == [1, 2]
    assert tree.entry_row.tolist() == [1, 1, 0]
    assert tree.is_chain


def test_a_branch_is_no_chain_and_two_roots_are_none_either():
    assert not grow([request([1, 2], 1), request([1, 3], 1)]).is_chain
    assert not grow([request([1], 1), request([2], 1)]).is_chain


@settings(max_examples=200, deadline=None)
@given(requests())
def test_the_nodes_are_the_distinct_beginnings_and_ancestors_spell_them(found):
    tree = grow(found)
    beginnings = {tuple(r.read[: n + 1]) for r in found for n in range(len(r.read))}
    spelt = set()
    for node in range(len(tree)):
        path = [j for j in range(node + 1) if node < tree.end[j]]
        assert tree.depth[path].tolist() == list(range(len(path)))
        spelt.add(tuple(tree.tokens[path].tolist()))
    assert len(tree) == len(beginnings)
    assert spelt == beginnings


@settings(max_examples=200, deadline=None)
@given(requests())
def test_chains_give_every_request_back_in_order(found):
    plain = chains(grow(found))
    assert [chain.tokens.tolist() for chain in plain] == [r.read.tolist() for r in found]
    assert all(chain.is_chain for chain in plain)
    for chain, r in zip(plain, found, strict=True):
        assert chain.entry_target.tolist() == r.continuation.tolist()
        assert chain.rows[chain.entry_row].tolist() == list(range(len(r.read) - len(r.continuation), len(r.read)))


@settings(max_examples=200, deadline=None)
@given(requests())
def test_branches_answer_every_request_once_from_texts_that_none_continues(found):
    plain = branches(grow(found))
    reads = [tuple(r.read) for r in found]
    ends = {read for read in reads if not any(other[: len(read)] == read and other != read for other in reads)}
    assert sorted(tuple(branch.tokens.tolist()) for branch in plain) == sorted(ends)
    for index, r in enumerate(found):
        (mine,) = [branch for branch in plain if index in branch.entry_request]
        where = mine.entry_request == index
        assert mine.entry_target[where].tolist() == r.continuation.tolist()
        assert mine.rows[mine.entry_row[where]].tolist() == list(range(len(r.read) - len(r.continuation), len(r.read)))
        assert mine.tokens[: len(r.read)].tolist() == r.read.tolist()


@settings(max_examples=200, deadline=None)
@given(requests())
def test_the_trunk_is_shared_by_all_and_predicts_nothing_and_what_stands_above_keeps_its_places(found):
    tree = grow(found)
    trunk = tree.trunk
    assert all(r.read[:trunk].tolist() == tree.tokens[:trunk].tolist() for r in found)
    assert all(len(r.read) - len(r.continuation) >= trunk for r in found)
    longer = {tuple(r.read[: trunk + 1]) for r in found}
    assert len(longer) > 1 or any(len(r.read) - len(r.continuation) == trunk for r in found)
    above = tree.above(trunk)
    assert above.tokens.tolist() == tree.tokens[trunk:].tolist()
    assert above.depth.tolist() == tree.depth[trunk:].tolist()
    assert (above.end + trunk).tolist() == tree.end[trunk:].tolist()
    assert above.tokens[above.rows].tolist() == tree.tokens[tree.rows].tolist()


def test_shared_length_counts_the_common_beginning():
    a, b = np.array([1, 2, 3], np.int32), np.array([1, 2, 4, 5], np.int32)
    assert (shared_length(a, b), shared_length(a, a), shared_length(a, b[:1]), shared_length(a, b[2:])) == (2, 3, 1, 0)
