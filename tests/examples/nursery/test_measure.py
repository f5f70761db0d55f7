from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from examples.nursery.measure import Bench, Figures, broken_promises, macro, report, restacked

GOOD = Figures(
    held_out={
        "base": {"arc": 25.0, "wino": 50.0, "hella": 30.0},
        "arc": {"arc": 90.0, "wino": 50.0, "hella": 30.0},
        "wino": {"arc": 25.0, "wino": 95.0, "hella": 30.0},
        "hella": {"arc": 25.0, "wino": 50.0, "hella": 95.0},
        "blend 0.33 / 0.33 / 0.33": {"arc": 55.0, "wino": 75.0, "hella": 60.0},
        "blend 1.00 / 0.60 / 1.20": {"arc": 85.0, "wino": 92.0, "hella": 93.0},
    },
    layouts={"as blended": 90.0, "drop 1": 70.0, "drop 2-5": 55.0, "drop 0": 33.0},
    best="blend 1.00 / 0.60 / 1.20",
    tried=30,
)


def changed(model: str, **scores: float) -> Figures:
    return replace(GOOD, held_out={**GOOD.held_out, model: {**GOOD.held_out[model], **scores}})


def test_a_family_as_designed_breaks_no_promise():
    assert broken_promises(GOOD) == []


@pytest.mark.parametrize(
    ("figures", "promise"),
    [
        (changed("arc", arc=74.0), "at least 75 %"),
        (changed("base", hella=80.0), "best parent on its own task"),
        (changed("hella", wino=61.0), "gains at most 10"),
        (changed("blend 1.00 / 0.60 / 1.20", arc=50.0, wino=60.0), "beats the best parent by 20"),
        (changed("blend 0.33 / 0.33 / 0.33", arc=85.0, hella=90.0), "not the best blend"),
        (replace(GOOD, layouts={**GOOD.layouts, "drop 1": 89.0}), "hurts by degrees"),
    ],
)
def test_each_broken_promise_is_named(figures, promise):
    assert any(promise in broken for broken in broken_promises(figures))


def test_the_report_has_a_row_per_model_and_per_layout():
    lines = report(GOOD).splitlines()
    assert "| base | 25.0 | 50.0 | 30.0 | 35.0 |" in lines
    assert "| **blend 1.00 / 0.60 / 1.20** | 85.0 | 92.0 | 93.0 | 90.0 |" in lines
    assert "| drop 1 | 70.0 |" in lines


def test_a_blend_is_the_base_plus_weighted_differences(smoke_family):
    bench = Bench.open(smoke_family)
    name = "model.layers.1.mlp.up_proj.weight"
    base = bench.base[name]
    a, b, c = (weights[name] for weights in bench.specialists.values())
    blended = bench.blend((0.5, 2.0, -1.0))
    torch.testing.assert_close(blended[name], base + 0.5 * (a - base) + 2.0 * (b - base) - (c - base))
    for unit, skill in (((1.0, 0.0, 0.0), "arc"), ((0.0, 1.0, 0.0), "wino"), ((0.0, 0.0, 1.0), "hella")):
        torch.testing.assert_close(bench.blend(unit)[name], bench.specialists[skill][name])


def test_restacking_in_the_old_order_is_the_checkpoint_itself_and_swapping_is_not(smoke_family):
    bench = Bench.open(smoke_family)
    tokens = torch.arange(3, 23)[None]
    with torch.no_grad():
        stored = AutoModelForCausalLM.from_pretrained(smoke_family.base).eval()(tokens).logits
        same = restacked(bench.config, bench.base, (0, 1))(tokens).logits
        swapped = restacked(bench.config, bench.base, (1, 0))(tokens).logits
        deep = restacked(bench.config, bench.base, (0, 1, 1))
    torch.testing.assert_close(same, stored)
    assert (swapped - stored).abs().max() > 1e-3
    assert torch.equal(deep.model.layers[2].mlp.up_proj.weight, bench.base["model.layers.1.mlp.up_proj.weight"])


def test_scores_are_percentages_and_their_mean_is_the_macro(smoke_family):
    bench = Bench.open(smoke_family)
    scores = bench.scores(bench.base, bench.search)
    assert list(scores) == ["arc", "wino", "hella"]
    assert all((score / 100 * 32).is_integer() for score in scores.values())
    assert macro({"arc": 10.0, "wino": 20.0, "hella": 60.0}) == 30.0
