"""Every method that mergekit 0.1.5 has, compared with what mergekit made of the same tensors, masks and parameters.

What differs on purpose is in `test_deviations.py`, case by case; nothing else may.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.methods import method_of, methods
from merging.randomness import hash24, mask_key
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.oracle_cases import cases, golden, here, index
from tests.merging.methods.conftest import SEED

#: Their result holds norms, inner products, angles or variances of whole tensors.
REDUCING = {"slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce"}
#: The papers scale by the inverse of the chance; mergekit by what the norm has lost.
OWN_DEFAULTS = {(method, "rescale"): "inv_density" for method in ("dare_linear", "dare_ties", "della", "della_linear")}
COMPARED = [case for case in cases().values() if case.id not in DEVIATIONS]


def test_every_method_of_mergekit_is_here():
    assert index()["defaults"].keys() <= methods().keys()


def test_the_golden_files_are_of_the_named_version():
    assert index()["versions"]["mergekit"] == "0.1.5"


def test_mergekit_was_given_the_numbers_that_are_drawn_here():
    for position, drawn in golden("draws").items():
        ours = hash24(mask_key(SEED, position, "weight"), 0, drawn.size, torch.device("cpu"))
        assert np.array_equal(drawn, ours.numpy())


@pytest.mark.parametrize("method", index()["defaults"])
def test_what_is_not_given_is_what_mergekit_takes_unless_the_paper_says_otherwise(method):
    specs = {spec.name: spec for spec in method_of(method).info.params}
    for name, value in here(method, index()["defaults"][method]).items():
        if name != "scale":
            assert specs[name].default == OWN_DEFAULTS.get((method, name), value), name


@pytest.mark.parametrize("case", COMPARED, ids=[case.id for case in COMPARED])
def test_it_agrees_with_mergekit(case):
    assert case.error is None
    ours, theirs = case.ours(), case.theirs
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    apart = np.abs(ours.astype(np.float64) - theirs)
    if case.method in REDUCING or case.filled.get("rescale") is True:
        assert apart.max() <= 1e-6 * np.abs(theirs).max()
    else:
        assert (apart <= 2 * np.spacing(largest_term(case))).all()


def largest_term(case):
    """The largest magnitude that enters the sum of an element, float32."""
    weights = case.values("weight") if "weight" in case.filled else [1.0] * len(case.models)
    factor = abs(case.filled.get("lambda", 1.0))
    if case.filled.get("normalize") and case.method in (
        "linear",
        "task_arithmetic",
        "dare_linear",
        "della_linear",
        "breadcrumbs",
    ):
        factor /= abs(sum(weights))
    summed = case.tensors if case.base is None or case.method == "nearswap" else case.deltas
    terms = [np.abs(case.theirs), *(np.abs(factor * w * t) for w, t in zip(weights, summed, strict=True))]
    if case.base is not None:
        terms.append(np.abs(case.tensor(case.base)))
    return np.max(terms, axis=0).astype(np.float32)
