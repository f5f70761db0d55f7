"""The dtype that mergekit saves where a configuration names none: the one that the models are in."""

from __future__ import annotations

from core.model import DTYPE_NAMES, Header
from core.recipe.short import Dtype

_DTYPES: dict[str, Dtype] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


def native_dtype(header: Header) -> Dtype:
    """What the dtypes of a model's tensors promote to."""
    found = {DTYPE_NAMES[tensor.dtype] for tensor in header.tensors}
    return _DTYPES.get(found.pop(), "float32") if len(found) == 1 else "float32"
