"""Run one kernel on arrays, through the same code a candidate is built by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from core.params import Scalar
from merging.compute import compute
from merging.kernels import Inputs
from merging.methods import method_of
from merging.plan import Leaf, Pool, TensorPlan
from merging.randomness import mask_key
from merging.statistics import Statistics

SEED = 5


class ArrayParents:
    """Parents that are arrays in memory."""

    device = torch.device("cpu")

    def __init__(self, arrays: Sequence[torch.Tensor]) -> None:
        self._arrays = arrays

    def tensor(self, digest: str, name: str, *, keep: bool = True) -> torch.Tensor:
        return self._arrays[int(digest)]

    def peak(self, digest: str, name: str) -> None:
        return None

    def making_bytes(self, digest: str, name: str) -> int:
        return 0


def merge(
    method: str,
    arrays: Sequence[Any],
    *,
    base: Any = None,
    params: Mapping[str, Scalar] | None = None,
    sources: Sequence[Mapping[str, Scalar]] | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = SEED,
) -> torch.Tensor:
    """The merged tensor. `sources` are values per array; the base, if there is one, is appended last."""
    planned, parents = planned_of(
        method, arrays, base=base, params=params, sources=sources, scale=scale, dtype=dtype, seed=seed
    )
    return compute(planned, parents)


def planned_of(
    method: str,
    arrays: Sequence[Any],
    *,
    base: Any = None,
    params: Mapping[str, Scalar] | None = None,
    sources: Sequence[Mapping[str, Scalar]] | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = SEED,
) -> tuple[TensorPlan, Any]:
    """What `merge` computes, and where its tensors come from."""
    info = method_of(method).info
    tensors = [torch.as_tensor(array) for array in (*arrays, *([] if base is None else [base]))]
    defaults = {spec.name: spec.default for spec in info.params if spec.scope != "source"}
    each = {spec.name: spec.default for spec in info.params if spec.scope == "source"}
    values = [{**each, **given} for given in (sources or [{}] * len(arrays))]
    leaves = tuple(Leaf(str(i), "weight", t.dtype) for i, t in enumerate(tensors))
    # Over the whole model means over this one tensor.
    pools = (*(Pool(((leaf, leaves[-1], tensors[0].numel()),)) for leaf in leaves[:-1]), None)
    planned = TensorPlan(
        name="weight",
        shape=tuple(tensors[0].shape),
        method=method,
        version=info.version,
        sources=leaves,
        base=None if base is None else len(arrays),
        params={**defaults, **(params or {})},
        source_params=(*values, *([] if base is None else [{}])),
        scale=scale,
        keys=tuple(mask_key(seed, str(i), "weight") for i in range(len(tensors))) if info.random else (),
        dtype=dtype,
        pools=pools if (params or {}).get("trim_scope") == "model" else (),
    )
    return planned, ArrayParents(tensors)


@pytest.fixture(name="merge")
def merge_fixture() -> Callable[..., torch.Tensor]:
    return merge


@pytest.fixture
def arrays() -> list[np.ndarray]:
    """Four float32 matrices: a base (the last) and three fine-tunes of it, larger than one block."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=(700, 401)).astype(np.float32)
    return [(base + 0.1 * generator.normal(size=base.shape)).astype(np.float32) for _ in range(3)] + [base]


@pytest.fixture(name="inputs_of")
def inputs_fixture() -> Callable[..., Inputs]:
    """What a kernel of task vectors sees of arrays and their base."""

    def inputs_of(arrays: Sequence[Any], base: Any, *, room: int = 1 << 28, **params: Scalar) -> Inputs:
        tensors = [torch.as_tensor(array) for array in (*arrays, base)]
        return Inputs(
            tensors=tuple(tensor.reshape(-1) for tensor in tensors),
            shape=tuple(tensors[0].shape),
            name="weight",
            base=len(arrays),
            params=params,
            source_params=tuple(params for _ in tensors),
            keys=tuple(mask_key(SEED, str(i), "weight") for i in range(len(tensors))),
            content=tuple(f"array {i}" for i in range(len(tensors))),
            statistics=Statistics(room),
        )

    return inputs_of
