"""Every registered method, as tests call it: with its deltas taken against a base, or without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.catalog import MethodInfo
from core.params import ChoiceParam, ParamSpec, Scalar
from merging.methods import methods
from tests.merging.methods.conftest import merge


@dataclass(frozen=True)
class Way:
    """A method, with or without a base."""

    info: MethodInfo
    based: bool

    @property
    def id(self) -> str:
        return f"{self.info.name} on a base" if self.based and not self.info.needs_base else self.info.name

    @property
    def count(self) -> int:
        """Three sources, or as many as the method takes."""
        return max(self.info.min_sources, min(3, self.info.max_sources or 3))

    @property
    def specs(self) -> dict[str, ParamSpec]:
        return {spec.name: spec for spec in self.info.params}

    def __call__(
        self,
        arrays: Sequence[Any],
        base: Any = None,
        values: Mapping[str, Scalar] | None = None,
        *,
        sources: Sequence[Mapping[str, Scalar]] = (),
        **options: Any,
    ) -> torch.Tensor:
        """The merge of the first `count` arrays, or of all if there are fewer.

        `values` are for the tensor or every source, those in `sources` for one source each; a value that the method
        does not have is left out. `options` are those of `merge`.
        """
        params, each = self.placed(values or {})
        arrays = arrays[: self.count]
        given = [{**each, **self.placed(own)[1]} for own in (sources or [{}] * len(arrays))]
        return merge(self.info.name, arrays, base=base if self.based else None, params=params, sources=given, **options)

    def placed(self, values: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
        """Values of the whole tensor, and those that every source gets; what the method does not have is left out."""
        known = {name: value for name, value in values.items() if name in self.specs}
        own = {name for name in known if self.specs[name].scope == "source"}
        return {n: v for n, v in known.items() if n not in own}, {n: v for n, v in known.items() if n in own}

    @property
    def active(self) -> dict[str, Scalar]:
        """Values under which the method does what it is named for: half of every task vector is dropped or differs."""
        return {"density": 0.5, "parts": 2, "offset_2": 0.25}

    @property
    def flipped(self) -> dict[str, Scalar]:
        """Every flag of the method at a choice that is not its default."""
        flags = [spec for spec in self.info.params if isinstance(spec, ChoiceParam)]
        return {spec.name: next(choice for choice in spec.choices if choice != spec.default) for spec in flags}


def ways() -> list[Way]:
    """Every method; those that may take a base, both ways."""
    return [
        Way(method.info, based)
        for _, method in sorted(methods().items())
        for based in ((False, True) if method.info.optional_base else (method.info.needs_base,))
    ]


def grid(shape: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Three tensors and a base near them, all on a coarse grid, so that float32 subtracts them exactly."""
    generator = np.random.default_rng(7)
    base = generator.integers(-64, 64, size=shape)
    others = [base + generator.integers(-8, 9, size=shape) for _ in range(3)]
    return [(array / 64).astype(np.float32) for array in others], (base / 64).astype(np.float32)
