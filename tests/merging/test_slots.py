from __future__ import annotations

from itertools import pairwise

import torch

from merging import slots
from merging.plan import Leaf, TensorPlan
from merging.slots import Slots

CPU = torch.device("cpu")


def planned(name, content, shape=(8, 16), dtype=torch.float32):
    """A plan whose content is told by one number."""
    return TensorPlan(
        name=name,
        shape=shape,
        method="linear",
        version=1,
        sources=(Leaf("m", name, dtype),),
        base=None,
        params={"normalize": True},
        source_params=({"weight": float(content)},),
        scale=1.0,
        keys=(),
        dtype=dtype,
    )


def names(count):
    return [f"layers.{i}.weight" for i in range(count)]


def build(held, plans):
    """Claim, and settle as if everything had been written; gives the places by name."""
    wanted = {plan.content: plan for plan in plans}
    held.settle(held.claim(wanted))
    return {plan.name: held.held[plan.content].parameter.data_ptr() for plan in plans}


def test_slots_of_one_size_lie_in_the_order_of_their_names_whatever_order_they_are_asked_for_in():
    found = build(Slots(CPU), [planned(name, 0) for name in reversed(names(12))])
    places = [found[name] for name in names(12)]
    assert [right - left for left, right in pairwise(places)] == [8 * 16 * 4] * 11


def test_the_next_candidate_takes_the_same_places_by_name():
    held = Slots(CPU)
    first = build(held, [planned(name, 0) for name in names(5)])
    assert build(held, [planned(name, 1) for name in reversed(names(5))]) == first


def test_what_does_not_change_stays_and_the_rest_is_claimed():
    held = Slots(CPU)
    first = build(held, [planned(name, 0) for name in names(4)])
    plans = [planned(name, int(place == 2)) for place, name in enumerate(names(4))]
    assert [slot.name for slot in held.claim({plan.content: plan for plan in plans}).values()] == ["layers.2.weight"]
    assert build(Slots(CPU), plans).keys() == first.keys()


def test_a_slot_of_another_name_is_taken_where_its_shape_and_dtype_fit():
    held = Slots(CPU)
    (place,) = build(held, [planned("a", 0)]).values()
    assert build(held, [planned("b", 1)])["b"] == place
    assert build(held, [planned("b", 1), planned("c", 2, (16, 8)), planned("d", 3, dtype=torch.bfloat16)])["b"] == place


def test_a_claim_that_is_never_settled_leaves_no_slot_under_any_content():
    held, plan = Slots(CPU), planned("a", 0)
    build(held, [plan])
    held.claim({"other": planned("a", 1)})
    assert plan.content not in held.held
    assert held.claim({plan.content: plan})


def test_memory_is_given_up_before_it_runs_out(monkeypatch):
    held, real, asked = Slots(CPU), slots.in_rows, []
    build(held, [planned("a", 0)])

    def full(sizes, device):
        asked.append(len(held.held))
        if len(asked) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(sizes, device)

    monkeypatch.setattr(slots, "in_rows", full)
    build(held, [planned("a", 1, (4, 4))])
    assert asked == [1, 0]


def test_layouts_are_let_go_of_with_the_memory_that_they_lie_in(monkeypatch):
    held, real, failed = Slots(CPU), slots.in_rows, []
    build(held, [planned("a", 0)])
    held.layouts._known["any"] = []

    def full(sizes, device):
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(sizes, device)

    monkeypatch.setattr(slots, "in_rows", full)
    build(held, [planned("a", 1, (4, 4))])
    assert not held.layouts._known
