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
from tests.conformance.oracle_cases import agrees, cases, golden, here, index
from tests.merging.methods.conftest import SEED

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
    assert np.isfinite(case.theirs).all()
    assert agrees(case)
