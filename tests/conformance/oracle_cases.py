"""The golden cases, and what each of them is called here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from core.catalog import MethodInfo
from core.params import ParamSpec, Scalar
from merging.methods import method_of
from tests.merging.methods.conftest import merge

GOLDEN = Path(__file__).with_name("golden")
#: Names for what mergekit only switches on: both scale the kept entries up to the norm that was there before.
RESCALE = {True: "l1", False: "none"}

#: Their result holds norms, inner products, angles or variances of whole tensors.
REDUCING = {"slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce"}
#: Those that `normalize` by the sum of all weights; others divide by the weights of what agrees.
DIVIDING = {"linear", "task_arithmetic", "dare_linear", "della_linear", "breadcrumbs"}


@dataclass(frozen=True)
class Case:
    """A case, its tensors and what mergekit 0.1.5 made of them (None where it raised an error)."""

    id: str
    method: str
    family: str
    models: tuple[str, ...]
    base: str | None
    parameters: Mapping[str, Any]
    error: str | None

    @property
    def theirs(self) -> np.ndarray:
        return golden("expected")[self.id]

    @property
    def tensors(self) -> list[np.ndarray]:
        """Of the models besides the base."""
        return [self.tensor(name) for name in self.models]

    def tensor(self, name: str) -> np.ndarray:
        return golden("inputs")[f"{self.family}/{name}"]

    @property
    def deltas(self) -> list[np.ndarray]:
        """In float64."""
        base = self.tensor(self.base).astype(np.float64)
        return [tensor - base for tensor in self.tensors]

    def values(self, name: str) -> list[Any]:
        """What each model has of a parameter that mergekit has per model."""
        value = self.filled[name]
        return [value[model] if isinstance(value, dict) else value for model in self.models]

    @property
    def filled(self) -> dict[str, Any]:
        """The parameters, with mergekit's defaults for those not given."""
        return {**index()["defaults"][self.method], **self.parameters}

    def asked(self) -> Asked:
        """What this project is asked for."""
        info, given = method_of(self.method).info, renamed(self)
        on_base = self.base is not None and (info.needs_base or info.optional_base)
        # Where mergekit calls the first of several equals a base, it is the first source here.
        names = self.models if on_base or self.base is None else (self.base, *self.models)
        scale = given.pop("scale", None)
        params, sources = split(info, given, names)
        return Asked(names, self.base if on_base else None, params, sources, 1.0 if scale is None else scale)

    def ours(self) -> np.ndarray:
        """What this project makes of the same."""
        asked = self.asked()
        arrays = [self.tensor(name) for name in asked.names]
        base = None if asked.base is None else self.tensor(asked.base)
        options = {"params": asked.params, "sources": asked.sources, "scale": asked.scale}
        return merge(self.method, arrays, base=base, **options).numpy()


@dataclass(frozen=True)
class Asked:
    """Sources besides the base, the base, and their values, by the names they have here."""

    names: tuple[str, ...]
    base: str | None
    params: Mapping[str, Scalar]
    sources: list[dict[str, Scalar]]
    scale: float


def renamed(case: Case) -> dict[str, Any]:
    """The parameters of a case by the names they have here; `scale` is one value."""
    given = here(case.method, case.filled)
    if isinstance(given.get("scale"), dict):
        given["scale"] = given["scale"][case.models[0]]
    return given


def here(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """mergekit's parameters of a method by the names and values they have here."""
    without = {"int8_mask"}  # how a mask is stored
    if method == "task_arithmetic":
        without |= {"density", "rescale"}  # nothing is dropped, so that neither changes anything
    found = {name: value for name, value in given.items() if name not in without}
    if "rescale" in found:
        found["rescale"] = RESCALE[found["rescale"]]
    return found


def split(
    info: MethodInfo, given: Mapping[str, Any], models: tuple[str, ...]
) -> tuple[dict[str, Scalar], list[dict[str, Scalar]]]:
    """Parameters of the whole tensor, and those of every model."""
    specs: dict[str, ParamSpec] = {spec.name: spec for spec in info.params}
    if unknown := sorted(given.keys() - specs.keys()):
        raise AssertionError(f"{info.name} has no parameter {unknown}, which mergekit has")
    params, sources = {}, [{} for _ in models]
    for name, value in given.items():
        if specs[name].scope == "source":
            for values, model in zip(sources, models, strict=True):
                values[name] = value[model] if isinstance(value, dict) else value
        else:
            assert not isinstance(value, dict), f"mergekit has {name} of {info.name} per model, here it is one value"
            params[name] = value
    return params, sources


@cache
def index() -> dict[str, Any]:
    return json.loads((GOLDEN / "index.json").read_text())


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    return load_file(GOLDEN / f"{name}.safetensors")


@cache
def cases() -> dict[str, Case]:
    """Every case by its id."""
    found = (
        Case(**{k: tuple(v) if k == "models" else v for k, v in c.items() if k != "label"}) for c in index()["cases"]
    )
    return {case.id: case for case in found}


def of(*patterns: str) -> Iterator[Case]:
    """The cases whose id fits one of the patterns (as file names do)."""
    import fnmatch

    for case in cases().values():
        if any(fnmatch.fnmatchcase(case.id, pattern) for pattern in patterns):
            yield case


def agrees(case: Case) -> bool:
    """Whether ours and theirs are as near as they have to be.

    Methods that reduce: 1e-6 of the tensor's largest element, for mergekit reduces in float32. Others: 2 ulp of the
    largest term of the element's sum.
    """
    ours, theirs = case.ours(), case.theirs
    assert ours.shape == theirs.shape
    apart = np.abs(ours.astype(np.float64) - theirs)
    if case.method in REDUCING or case.filled.get("rescale") is True:
        return bool(apart.max() <= 1e-6 * np.abs(theirs).max())
    return bool((apart <= 2 * np.spacing(largest_term(case))).all())


def largest_term(case: Case) -> np.ndarray:
    """The largest magnitude that enters the sum of an element, float32."""
    weights = case.values("weight") if "weight" in case.filled else [1.0] * len(case.models)
    factor = abs(case.filled.get("lambda", 1.0))
    if case.filled.get("normalize") and case.method in DIVIDING:
        factor /= abs(sum(weights)) or 1.0
    summed = case.tensors if case.base is None else case.deltas
    terms = [np.abs(case.theirs), *(np.abs(factor * w * t) for w, t in zip(weights, summed, strict=True))]
    if case.base is not None:
        terms.append(np.abs(case.tensor(case.base)))
    return np.max(terms, axis=0).astype(np.float32)
