"""The comparison itself, on a nursery that is grown in seconds."""

import pytest
import torch

from benchmarks import search_refine
from benchmarks.search_nursery import Nursery
from core.refinement import Refine
from examples.nursery.grow import GrowthPlan, grow

torch.set_num_threads(1)
ITEMS = {"search": 24, "heldout": 16}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nursery")
    grow(folder, plan=GrowthPlan.smoke())
    return Nursery(folder, 7, ITEMS)


@pytest.fixture(autouse=True)
def few_items(monkeypatch):
    monkeypatch.setattr(search_refine, "ITEMS", ITEMS)
    monkeypatch.setattr(search_refine, "FULL", 3 * 24)
    monkeypatch.setattr(search_refine, "RUNGS", (6, 12, 24))


def test_every_item_of_a_search_by_refinement_is_counted(nursery, monkeypatch):
    walked = []
    monkeypatch.setattr(search_refine, "walk", lambda *a, **k: walked.append(search_refine_walk(*a, **k)) or walked[-1])
    found = search_refine.refined(nursery, 0, Refine(max_items=150, batch=6, kept_most=4, polish=1))
    assert list(found) == ["after 1", "after 2", "end", "alone"]
    parents, reference = 4 * 72, 72
    assert found["end"].items - found["alone"].items == parents + reference
    spent = sum(walk.items for walk in walked)
    # Starts, findings and one polished candidate on the first rung, then four and two of them on the others.
    races = found["alone"].items - spent - 3 * 6 * 4 - 3 * 12 * 2
    assert races > 0
    assert races % (3 * 6) == 0


search_refine_walk = search_refine.walk


def test_the_baseline_pays_for_every_item_of_every_candidate(nursery):
    found = search_refine.evolved(nursery, 0, 3)
    assert found.items == 3 * 72
    assert 0 <= found.held_out <= 100
