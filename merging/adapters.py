"""LoRA adapters applied to their base, tensor by tensor: W' = W + s B A, rounded once, to float32.

A matrix product's bytes depend on the library and its threads, so B A is a sum of r outer products, added element by
element in the order of the rank. The factors are float32 or narrower, their products are therefore exact in float64,
and no contraction of a product with a sum can change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from core.adapters import AdaptedModel, Adapter, Change, adapter_tensors, changes_by_tensor, transposes
from core.checkpoint import StoredTensor
from core.errors import CheckpointError
from core.model import Header, Model
from merging.sources import Parents

#: Elements of the float64 sum held at once; bounds the memory, does not change the bytes.
BLOCK = 1 << 18


class Adapted:
    """The tensors of a base with an adapter.

    Args:
        base: the base's weights digest.
        header: the base's header.
        adapter: the adapter.
        folder: where it lies.

    Raises:
        CheckpointError: the files hold other tensors than were registered.
    """

    def __init__(self, base: str, header: Header, adapter: Adapter, folder: Path) -> None:
        self.base, self.header = base, header
        self.changes: Mapping[str, tuple[Change, ...]] = changes_by_tensor(header, adapter.header)
        self._stored = {stored.info.name: stored for stored in adapter_tensors(folder)}
        if tuple(stored.info for stored in self._stored.values()) != adapter.header.tensors:
            raise CheckpointError(f"the adapter {adapter.name!r} must be as registered, but differs: register it again")

    def origin(self, name: str) -> tuple[str, str] | None:
        """The base's tensor, where the adapter leaves it as it is."""
        return None if name in self.changes else (self.base, name)

    def make(self, name: str, parents: Parents) -> Tensor:
        """The changed tensor, on the parents' device."""
        weight: Tensor | None = None
        for change in self.changes[name]:
            if change.whole is not None:
                weight = self._read(change.whole, parents).clone()  # Mapped memory may lie at any address.
                continue
            if weight is None:
                weight = parents.tensor(self.base, name, keep=False)
            a, b = (self._read(str(factor), parents) for factor in (change.a, change.b))
            weight = add_product(weight, a, b, change.scale, transposed=transposes(self.header, name, change))
        assert weight is not None
        return weight

    def making_bytes(self, name: str, parents: Parents) -> int:
        """The tensor it changes, twice where changes follow one another, and the factors in float64 with a block."""
        elements = next(info.elements for info in self.header.tensors if info.name == name)
        before = max(parents.read_bytes(self.base, name), 4 * elements)
        low_rank = [change for change in self.changes[name] if change.whole is None]
        factors = [self._stored[str(factor)].info for change in low_rank for factor in (change.a, change.b)]
        # As stored, in float32, in float64, and that in another order; two sums of a block, which has at least a row.
        widest = max((info.elements for info in factors), default=0)
        return 2 * before + sum(24 * info.elements for info in factors) + 16 * (BLOCK + widest)

    def _read(self, name: str, parents: Parents) -> Tensor:
        stored: StoredTensor = self._stored[name]
        return parents.mapped(stored).to(parents.device)


def add_product(weight: Tensor, a: Tensor, b: Tensor, scale: float, *, transposed: bool = False) -> Tensor:
    """W + s B A in float32.

    Args:
        weight: W, (outputs, inputs), or (inputs, outputs) if `transposed`.
        a, b: (r, inputs) and (outputs, r), float32 or narrower.
        scale: s.
        transposed: whether (B A) is transposed before it is added.
    """
    rows, columns = (a, b.t()) if transposed else (b.t(), a)
    left, right = rows.float().double().contiguous(), columns.float().double().contiguous()
    result = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    step = max(1, BLOCK // max(1, weight.shape[1]))
    for start in range(0, weight.shape[0], step):
        part = slice(start, start + step)
        total = left[0, part, None] * right[0]
        for k in range(1, left.shape[0]):
            total.addcmul_(left[k, part, None], right[k])
        result[part] = total.mul_(scale).add_(weight[part])
    return result


def open_parents(
    models: Iterable[Model],
    folder_of: Callable[[str], Path],
    device: torch.device | str = "cpu",
    *,
    keep_bytes: int | None = None,
    generators: Mapping[str, Path] | None = None,
) -> Parents:
    """The parents of some models, with every adapter on its base.

    Args:
        models: plain and adapted models.
        folder_of: the folder of a reference.
        device, keep_bytes, generators: as `Parents` takes them.

    Raises:
        CheckpointError: see `Parents` and `Adapted`.
    """
    every = {model.weights_digest: model for model in models}
    adapted = [model for model in every.values() if isinstance(model, AdaptedModel)]
    plain = {model.weights_digest: model for model in every.values() if not isinstance(model, AdaptedModel)}
    plain |= {model.base.weights_digest: model.base for model in adapted}
    folders = {digest: folder_of(model.ref) for digest, model in plain.items()}
    headers = {digest: model.header for digest, model in plain.items()}
    parents = Parents(folders, headers, device, keep_bytes=keep_bytes, generators=generators)
    for model in adapted:
        base, adapter = model.base, model.adapter
        made = Adapted(base.weights_digest, base.header, adapter, folder_of(adapter.ref))
        parents.derive(model.weights_digest, made)
        parents.headers[model.weights_digest] = model.header
        parents.folders[model.weights_digest] = parents.folders[base.weights_digest]
    return parents
