"""Where this project means to differ from mergekit 0.1.5: both values, and why ours.

What mergekit makes of a case is in the golden files; every test says what that is, in float64, so that the deviation
is understood and not only seen.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.conformance.deviations import DEVIATIONS, PATTERNS, deviating
from tests.conformance.oracle_cases import agrees, cases, golden

SHOWN = set()


def showing(what):
    SHOWN.add(what)
    found = deviating(what)
    return pytest.mark.parametrize("case", found, ids=[case.id for case in found])


def near(value, expected, tolerance=1e-6):
    """As near as methods that reduce have to be."""
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def far(one, other, share=1e-4):
    """Apart by much more than rounding."""
    assert np.abs(one.astype(np.float64) - other).max() > share * np.abs(one).max()


def directions(case):
    """The models, or their task vectors where there is a base, and what they stand on; float64."""
    if case.base is None:
        return [tensor.astype(np.float64) for tensor in case.tensors], 0.0
    return case.deltas, case.tensor(case.base).astype(np.float64)


def unit(vector):
    return vector / np.linalg.norm(vector)


@showing("a zero tensor has no direction")
def test_on_the_way_to_a_zero_tensor_the_line_is_taken(case):
    """mergekit finds a right angle between zero and anything, so that 30 % of the way gives 45 % of the model."""
    other = case.tensor("b").astype(np.float64)
    t = case.parameters["t"] if case.method == "slerp" else share_of_second(case)
    near(case.theirs, math.sin(t * math.pi / 2) * other)
    near(case.ours(), t * other)


def share_of_second(case):
    first, second = case.values("weight")
    return second / (first + second)


@showing("opposite directions take the line")
def test_between_opposite_directions_the_line_is_taken(case):
    """mergekit takes the line where the cosine is -1 exactly. Here float32 makes it -1 + 2^-24, and what it finds
    instead is thousands of times as long as the models."""
    (one, other), base = directions(case)
    t = share_of_second(case)
    theta = math.acos(-1 + 2**-24)
    found = math.sin((1 - t) * theta) * one + math.sin(t * theta) * other
    near(case.theirs, base + found / math.sin(theta), 2e-3)
    assert np.abs(case.theirs).max() > 1000 * np.abs(other).max()
    near(case.ours(), base + (1 - t) * one + t * other)


@showing("a mean of opposite directions takes the line")
def test_the_mean_of_opposite_directions_is_on_the_line_between_them(case):
    """mergekit begins at the first model's direction and stays there, or goes where sin(pi) in float32 leads it. So the
    result depends on the order of the models."""
    one, other = (tensor.astype(np.float64) for tensor in case.tensors)
    far(case.theirs, (one + other) / 2)
    if case.family == "opposite":
        near(case.theirs, one)
    near(case.ours(), (one + other) / 2 if case.family == "against" else np.zeros_like(one), 1e-6)


@showing("directions that cancel take the line")
def test_directions_that_cancel_take_the_line(case):
    """mergekit takes it for two models and raises an error for more."""
    assert case.error == "ValueError"
    vectors, base = directions(case)
    weights = np.array(case.values("weight"))
    assert np.array_equal(case.ours(), base + np.tensordot(weights / weights.sum(), vectors, 1))


@showing("a lone source has its weight")
def test_a_lone_source_without_normalised_weights_is_multiplied_by_its_weight(case):
    """As it is among several. mergekit returns it untouched."""
    ((vector,), base), (weight,) = directions(case), case.values("weight")
    assert np.array_equal(case.theirs, case.tensors[0])
    near(case.ours(), base + weight * vector)


@showing("eps decides and does not add")
def test_eps_does_not_bend_short_vectors_away_from_the_mean(case):
    """mergekit adds eps to every length, so that short vectors count for less, and to the last step's."""
    vectors, base = directions(case)
    weights, eps = np.array(case.values("weight")), case.parameters["eps"]
    weights = weights / weights.sum()
    length = sum(w * np.linalg.norm(v) for w, v in zip(weights, vectors, strict=True))
    bent = sum(w * v / (np.linalg.norm(v) + eps) for w, v in zip(weights, vectors, strict=True))
    straight = sum(w * unit(v) for w, v in zip(weights, vectors, strict=True))
    near(case.theirs - base, length * unit(bent) * math.cos(eps), 2e-4)
    near(case.ours() - base, length * unit(straight), 2e-4)
    assert np.linalg.norm(unit(bent) * math.cos(eps) - unit(straight)) > 1e-6


@showing("tol ends the iteration")
def test_tol_does_not_leave_out_models_that_are_short(case):
    """mergekit takes a tensor shorter than tol for zero: it counts in the mean length and not in the direction."""
    vectors = [tensor.astype(np.float64) for tensor in case.tensors]
    sizes = [np.linalg.norm(vector) for vector in vectors]
    assert 0 < sizes[1] < case.parameters["tol"] < min(sizes[0], sizes[2])
    length = sum(sizes) / 3
    near(case.theirs, length * unit(unit(vectors[0]) + unit(vectors[2])))
    near(case.ours(), length * unit(sum(unit(vector) for vector in vectors)))


@showing("t below 1e-6")
def test_a_tiny_t_is_the_length_of_the_step(case):
    """mergekit raises the difference to 1e-6 first, so that nearer weights go only part of the way to t."""
    one, other = (case.tensor(name).astype(np.float64) for name in ("a", "b"))
    t, change = case.parameters["t"], other - one
    step = 2 * np.spacing(np.abs(case.tensor("a")).max())
    theirs = one + np.clip(t / np.maximum(np.abs(change), 1e-6), 0, 1) * change
    ours = one + np.clip(change, -t, t)
    assert np.abs(case.theirs - theirs).max() <= step
    assert np.abs(case.ours() - ours).max() <= step
    assert np.abs(theirs - ours).max() > 10 * step


@showing("divergence of nearly equal rows")
def test_the_divergence_of_nearly_equal_rows_is_not_rounding(case):
    """A fine-tune a thousandth away has divergences of 1e-10 per row. In float32 their sum cannot be told from zero:
    what mergekit takes is decided by its rounding."""
    base, model = (case.tensor(name) for name in ("a", "b"))
    exact, rough = divergence(base.astype(np.float64), model.astype(np.float64)), divergence(base, model)
    assert exact.min() > 0
    assert np.abs(rough - exact).max() > 10 * exact.max()
    change = model.astype(np.float64) - base
    importance = np.sort((np.abs(change) * exact).ravel())
    low, middle, high = (importance[int(quarter * (importance.size - 1))] for quarter in (0.25, 0.5, 0.75))
    taken = np.abs(change) * exact >= middle + 1.5 * (high - low)
    assert np.array_equal(case.ours() != base, taken)
    assert np.mean((case.theirs != base) != taken) > 0.05


def divergence(base, model):
    """KL(softmax(M) || softmax(B)) of every row, in the precision of its input, 1e-8 added to every share."""

    def shares(rows):
        powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True) + rows.dtype.type(1e-8)

    p, q = shares(model), shares(base)
    return (p * np.log(p / q)).sum(axis=-1, keepdims=True)


@showing("short task vectors have angles")
def test_model_stock_sees_the_angle_between_short_task_vectors(case):
    """mergekit raises the product of two lengths to 1e-6: fine-tunes a thousandth away count as nearly unrelated."""
    near(case.theirs, stock(case, least=1e-6), 2e-6)
    near(case.ours(), stock(case, least=0.0))
    far(stock(case, least=1e-6), stock(case, least=0.0))


@showing("no centre in disagreement")
def test_model_stock_keeps_the_base_where_task_vectors_disagree(case):
    """A negative mean cosine makes the paper's share negative, and unbounded near -1/(N-1): mergekit goes away from the
    models, here up to three times as far as they are."""
    near(case.theirs, stock(case, least=1e-6), 2e-6)
    near(case.ours(), stock(case, least=0.0, lowest=0.0))
    far(stock(case, least=1e-6), stock(case, least=0.0, lowest=0.0), 1e-5)


def stock(case, least, lowest=-1.0):
    """Model stock in float64, lengths' products not below `least` and mean cosines not below `lowest`."""
    base = case.tensor("base").astype(np.float64)
    rows = case.filled["filter_wise"]
    deltas = [delta.reshape(-1, delta.shape[-1]) if rows else delta.reshape(1, -1) for delta in case.deltas]
    pairs = []
    for one, other in itertools.combinations(deltas, 2):
        product = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        product = np.maximum(product, least)
        pairs.append((one * other).sum(axis=1) / np.where(product == 0, 1.0, product))
    cosine = np.maximum(np.mean(pairs, axis=0), lowest)[:, None]
    count = len(deltas)
    share = count * cosine / (1 + (count - 1) * cosine)
    return base + (share * np.mean(deltas, axis=0)).reshape(base.shape)


@showing("equal magnitudes at the ends")
def test_of_equal_magnitudes_the_first_counts_as_the_largest(case):
    """As in `ties`, in mergekit too. Its breadcrumbs sort the other way round, so that there the last does."""
    near(case.theirs, breadcrumbs(case, first_is_largest=False))
    near(case.ours(), breadcrumbs(case, first_is_largest=True))
    far(case.theirs, breadcrumbs(case, first_is_largest=True))


@showing("something is kept")
def test_a_density_above_zero_keeps_at_least_one_element(case):
    """As in `ties`, in mergekit too. Its breadcrumbs lose the whole change of a tensor of fewer than 1/density."""
    near(case.theirs, breadcrumbs(case, least=0))
    near(case.ours(), breadcrumbs(case, least=1))
    far(case.theirs, breadcrumbs(case, least=1))


def breadcrumbs(case, first_is_largest=True, least=1):
    """Both breadcrumbs; at least `least` elements of a tensor are kept."""
    given = zip(case.values("density"), case.values("gamma"), strict=True)
    deltas = [tensor - case.tensor("base") for tensor in case.tensors]
    return merged(
        case, [middle(delta, *values, first_is_largest, least) for delta, values in zip(deltas, given, strict=True)]
    )


def merged(case, thinned):
    """What is left of the task vectors added up, or elected; float32, as rounding decides even votes."""
    weights = [np.float32(weight) for weight in case.values("weight")]
    weighted = [weight * delta.astype(np.float32) for weight, delta in zip(weights, thinned, strict=True)]
    total, divisor = sum(weighted[1:], weighted[0]), np.float32(sum(case.values("weight")))
    if case.method in ("breadcrumbs_ties", "della"):
        sign = np.where(total >= 0, 1, -1)
        agrees = [(np.sign(tensor) == sign).astype(np.float32) for tensor in weighted]
        total = sum(tensor * mask for tensor, mask in zip(weighted, agrees, strict=True))
        divisor = sum(weight * mask for weight, mask in zip(weights, agrees, strict=True))
        divisor = np.where(divisor == 0, np.float32(1), divisor)
    return case.tensor("base") + (total / divisor if case.filled["normalize"] else total)


def middle(delta, density, gamma, first_is_largest, least):
    """Without its largest elements, and without the smallest."""
    if density >= 1:
        return delta
    flat = delta.ravel()
    kept = max(least, int(density * flat.size))
    top = min(int(gamma * flat.size), flat.size - kept)
    index = np.arange(flat.size)
    ascending = np.lexsort((-index if first_is_largest else index, np.abs(flat)))
    chosen = ascending[flat.size - kept - top : flat.size - top]
    return np.where(np.isin(index, chosen), flat, np.float32(0)).reshape(delta.shape)


@showing("equal magnitudes in a row")
def test_of_equal_magnitudes_in_a_row_the_first_has_the_highest_rank(case):
    """As everywhere here. In mergekit the last has, and with it the better chance."""
    near(case.theirs, della(case, first_is_largest=False))
    near(case.ours(), della(case, first_is_largest=True))
    far(case.theirs, della(case, first_is_largest=True))


def della(case, first_is_largest):
    """Both DELLAs, with the draws that mergekit was given."""
    thinned = []
    given = zip(case.tensors, case.values("density"), case.values("epsilon"), strict=True)
    for place, (tensor, density, epsilon) in enumerate(given):
        delta = tensor - case.tensor("base")
        if density < 1:
            order = np.arange(delta.shape[1])
            ties = np.broadcast_to(-order if first_is_largest else order, delta.shape)
            rank = np.lexsort((ties, np.abs(delta)), axis=1).argsort(axis=1)
            chance = density - epsilon + 2 * epsilon * rank / (delta.shape[1] - 1)
            delta = kept_by_chance(case, place, delta, chance)
        thinned.append(delta)
    return merged(case, thinned)


def kept_by_chance(case, place, delta, chance):
    """A task vector without what was not drawn, scaled up to the sum of its magnitudes if the case says so."""
    drawn = golden("draws")[str(place)][: delta.size].reshape(delta.shape) / 2**24
    kept = np.where(drawn < chance, delta, np.float32(0))
    left = np.abs(kept.astype(np.float64)).sum()
    return kept * (np.abs(delta.astype(np.float64)).sum() / left) if case.filled["rescale"] and left else kept


@showing("one element has no rank")
def test_the_only_element_of_a_row_is_kept_with_the_density_as_its_chance(case):
    """mergekit divides 0 by 0 for its rank, and draws with the chance NaN."""
    assert case.error == "RuntimeError"
    deltas = [tensor - case.tensor("base") for tensor in case.tensors]
    chances = case.values("density")
    thinned = [kept_by_chance(case, place, delta, chances[place]) for place, delta in enumerate(deltas)]
    near(case.ours(), merged(case, thinned))


@showing("small changes have weights")
def test_sce_weighs_small_changes_too(case):
    """Mean squared changes below 1e-6 in all make mergekit's weights equal: those of fine-tunes a thousandth away are
    4e-10."""
    equal, weighed = sce(case, least=1e-6), sce(case, least=0.0)
    base = case.tensor("base")
    near(case.theirs - base, equal - base, 2e-4)
    near(case.ours() - base, weighed - base, 2e-4)
    far(equal - base, weighed - base, 2e-3)


def sce(case, least):
    """SCE in float64; weights are equal where the changes' mean squares are below `least` in all."""
    changes = np.array(case.deltas)
    share = case.filled["select_topk"]
    if share < 1:
        variance = changes.var(axis=0)
        selected = np.sort(variance.ravel())[::-1][int(share * np.count_nonzero(variance)) - 1]
        changes = changes * (variance >= selected)
    squares = (changes**2).mean(axis=tuple(range(1, changes.ndim)))
    weights = squares / squares.sum() if squares.sum() >= least else np.full(len(changes), 1 / len(changes))
    weights = weights.reshape(-1, *[1] * (changes.ndim - 1))
    agrees = weights * (np.sign(changes) == np.where(changes.sum(axis=0) >= 0, 1, -1))
    divisor = agrees.sum(axis=0)
    return case.tensor("base") + (agrees * changes).sum(axis=0) / np.where(divisor == 0, 1, divisor)


@showing("equal variances")
def test_only_between_equal_variances_another_one_is_selected(case):
    """Equal variances differ in float32 by how their means were rounded, on both sides, so that another one of them may
    be selected; everything else is alike."""
    changes = np.array([np.rint(delta * 64) for delta in case.deltas])
    variance = 3 * (changes**2).sum(axis=0) - changes.sum(axis=0) ** 2
    count = int(case.filled["select_topk"] * np.count_nonzero(variance))
    last = np.sort(variance.ravel())[::-1][count - 1]
    base, ours = case.tensor("base"), case.ours()
    assert (variance == last).sum() > 1
    for result in (ours, case.theirs):
        assert np.array_equal(result[variance < last], base[variance < last])
    # The weights of the models are those of what was selected, so that they too differ a little.
    np.testing.assert_allclose(ours[variance > last], case.theirs[variance > last], atol=1e-3)
    assert not np.array_equal(ours != base, case.theirs != base)


@showing("one element is selected")
def test_a_share_above_zero_selects_at_least_one_element(case):
    """As a density does. mergekit selects none of one."""
    assert np.array_equal(case.theirs, case.tensor("base"))
    changes = [delta.item() for delta in case.deltas]
    assert len({np.sign(change) for change in changes}) == 1
    near(case.ours(), case.tensor("base") + sum(c**3 for c in changes) / sum(c**2 for c in changes))


@showing("nothing to select from")
def test_a_lone_model_is_not_erased_by_selection(case):
    """It differs from no other, so that mergekit selects nothing of it."""
    assert np.array_equal(case.theirs, case.tensor("base"))
    near(case.ours(), case.tensors[0])


@showing("weights that cancel")
def test_weights_that_cancel_are_not_divided_by_what_float32_leaves_of_their_sum(case):
    """1 - 0.6 - 0.4 is 0; in float32, where mergekit adds it up, it is 3e-8 and passes its own guard at 1e-8."""
    weights = case.values("weight")
    change = sum(w * d for w, d in zip(weights, case.deltas, strict=True))
    left = float(np.sum(np.float32(weights), dtype=np.float32))
    assert abs(sum(weights)) < 1e-15 < 1e-8 < abs(left)
    base = case.tensor("base")
    assert np.abs(case.theirs).max() > 1e5
    np.testing.assert_allclose(case.theirs, base + change / left, rtol=1e-4, atol=10)
    near(case.ours(), base + change)


@pytest.mark.parametrize("id_", DEVIATIONS)
def test_a_case_that_is_said_to_deviate_does(id_):
    case = cases()[id_]
    assert case.error is not None or not agrees(case)


def test_every_deviation_is_shown():
    assert set(PATTERNS) == SHOWN
    assert len(DEVIATIONS) == sum(len(deviating(what)) for what in PATTERNS)
    assert all(deviating(what) for what in PATTERNS)
