import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import OutcomeConflictError
from core.outcomes import Outcomes, bitmap, bits, pack, unpack

ITEMS = st.lists(
    st.tuples(st.integers(0, 299), st.integers(0, 1), st.floats(-100, 100, width=32)), unique_by=lambda row: row[0]
)


def test_packing_is_the_documented_layout():
    presence, correct, margins = pack(Outcomes.of([(9, 1, 0.5), (0, 0, -2.0)]), 10)
    assert presence == bytes([0b00000001, 0b00000010])
    assert correct == bytes([0, 0b00000010])
    assert struct.unpack("<10f", margins) == (-2.0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5)


@given(ITEMS)
def test_unpack_undoes_pack(items):
    outcomes = Outcomes.of(items)
    assert unpack(*pack(outcomes, 300)) == outcomes


@given(ITEMS)
def test_what_is_packed_onto_others_is_packed_with_them(items):
    one, other = Outcomes.of(items[::2]), Outcomes.of(items[1::2])
    assert pack(one, 300, onto=pack(other, 300)) == pack(one | other, 300)


@given(ITEMS, ITEMS)
def test_union_takes_disjoint_results_and_refuses_doubled_ones(first, second):
    a, b = Outcomes.of(first), Outcomes.of(second)
    if set(a.numbers) & set(b.numbers):
        with pytest.raises(OutcomeConflictError, match="already scored"):
            _ = a | b
    else:
        assert (a | b).items() == sorted([*first, *second])


@given(st.sets(st.integers(0, 99)))
def test_bits_undo_bitmap(numbers):
    assert set(bits(bitmap(numbers, 100))) == numbers


def test_missing_keeps_the_order_asked_for():
    have = Outcomes.of([(2, 1, 0.0), (5, 0, 0.0)])
    assert have.missing([7, 5, 1, 2, 0]) == (7, 1, 0)


def test_numbers_must_ascend_and_lengths_agree():
    with pytest.raises(ValueError, match="ascending"):
        Outcomes((2, 1), (0, 0), (0.0, 0.0))
    with pytest.raises(ValueError, match="one length"):
        Outcomes((1, 2), (0,), (0.0, 0.0))
