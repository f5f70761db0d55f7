"""The memory that a kernel takes besides its inputs stays within what an export counts with."""

from __future__ import annotations

import pytest
import torch

from merging.compute import compute, peak_bytes
from tests.merging.methods.conftest import planned_of
from tests.merging.test_compute import LiveBytes

SETTINGS = {
    "ties": [{"trim_scope": "tensor"}, {"trim_scope": "model"}, {"rescale": "l2"}],
    "dare_linear": [{}, {"rescale": "l1"}],
    "della": [{}, {"rescale": "l1"}],
    "breadcrumbs_ties": [{"outliers": "tensor"}, {"outliers": "row"}],
    "sce": [{"select_topk": 1.0}, {"select_topk": 0.4}],
    "ramplus_tl": [{}],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "params"), [(name, each) for name, given in SETTINGS.items() for each in given])
def test_a_tensor_of_many_blocks_takes_no_more_than_was_planned(method, params, dtype):
    generator = torch.Generator().manual_seed(0)
    *arrays, base = [torch.randn((2000, 1000), generator=generator).to(dtype) for _ in range(3)]
    sources = [{"density": 0.5}, {"density": 0.3}]
    info = {"sources": sources} if method not in ("sce", "ramplus_tl") else {}
    planned, parents = planned_of(method, arrays, base=base, params=params, dtype=dtype, **info)
    with LiveBytes() as counted:
        compute(planned, parents, keep=False)
    # The parents' own tensors are seen as well, through the views that are taken of them.
    leaves = sum(tensor.nbytes for tensor in (*arrays, base))
    assert leaves < counted.peak <= peak_bytes(planned, parents)
