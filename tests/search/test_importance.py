import numpy as np
import pytest
from studies import merges, space

from search.importance import LEAST, importance, slices
from search.past import Past


def studied(method, count, score, *, start=0, seed=0, compiled=None):
    """Results of uniform draws of one method's numbers."""
    rng, compiled = np.random.default_rng(seed), compiled or merges(method, "slerp")
    names = [hole.name for hole in compiled.holes if hole.name.startswith(f"merge.{method}.")]
    found = []
    for number in range(start, start + count):
        drawn = {
            hole.name: float(rng.uniform(hole.spec.search_low, hole.spec.search_high))
            for hole in compiled.holes
            if hole.name in names
        }
        values = {"merge.method": method, **drawn}
        found.append(Past(number, "complete", values, score(values), 1e-6, 100))
    return compiled, found


def by_name(groups):
    return {entry["name"]: entry["importance"] for group in groups for entry in group["parameters"]}


def test_what_moves_the_score_is_important_and_what_does_not_is_like_noise():
    compiled, pasts = studied("linear", 120, lambda v: -((v["merge.linear.weight.b"] - 0.4) ** 2))
    (group,) = [g for g in importance(compiled, pasts) if g["when"] == {"merge.method": "linear"}]
    shares = {entry["name"]: entry["importance"] for entry in group["parameters"]}
    assert group["trials"] == 120 and sum(shares.values()) == pytest.approx(1.0)
    assert group["parameters"][0]["name"] == "merge.linear.weight.b" and shares["merge.linear.weight.b"] > 0.7
    assert shares["merge.linear.weight.a"] < 3 * group["noise"] < 0.5


def test_every_condition_is_judged_over_its_own_candidates():
    both = merges("linear", "task_arithmetic")
    weight = "task_arithmetic.weight.a"
    _, first = studied("linear", 40, lambda v: 0.5 + 0.1 * v["merge.linear.weight.a"], compiled=both)
    _, second = studied("task_arithmetic", 12, lambda v: 0.01 * v[f"merge.{weight}"], start=40, compiled=both)
    found = importance(both, [*first, *second])
    assert [group["trials"] for group in found if group["when"] == {}] == [52]
    top = by_name([group for group in found if group["when"] == {}])
    assert top == {"merge.method": pytest.approx(1.0)}
    counts = {group["when"]["merge.method"]: group["trials"] for group in found if group["when"]}
    assert counts == {"linear": 40, "task_arithmetic": 12}


def test_too_few_or_equal_results_say_nothing_and_why():
    compiled, pasts = studied("linear", LEAST - 1, lambda v: v["merge.linear.weight.a"])
    assert all("fewer than" in group["reason"] and not group["parameters"] for group in importance(compiled, pasts))
    compiled, pasts = studied("linear", 20, lambda v: 0.5)
    (group,) = [g for g in importance(compiled, pasts) if g["when"] == {"merge.method": "linear"}]
    assert group["reason"] == "all results are equal"


def test_importance_is_the_same_every_time():
    compiled, pasts = studied("linear", 30, lambda v: v["merge.linear.weight.a"])
    assert importance(compiled, pasts) == importance(compiled, pasts)


def test_slices_hold_every_result_along_its_own_axis():
    compiled, pasts = studied("linear", 5, lambda v: 0.25)
    running = Past(5, "running", pasts[0].values)
    found = {entry["name"]: entry for entry in slices(compiled, [*pasts, running], most=4)}
    axis = found["merge.linear.weight.a"]
    assert (axis["low"], axis["log"], axis["when"]) == (0.0, False, {"merge.method": "linear"})
    assert [point["number"] for point in axis["points"]] == [1, 2, 3, 4]
    assert axis["points"][0]["value"] == pasts[1].values["merge.linear.weight.a"]
    assert set(found["merge.method"]["choices"]) == {"linear", "slerp"}
    assert found["merge.slerp.t"]["points"] == []
    assert slices(space(), [])[0]["points"] == []
