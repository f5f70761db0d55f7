"""mergekit 0.1.5's merge methods: what they take, with its defaults, and what that is called here.

The names are the same on both sides. Where one side has more to say, the table knows what the other one means.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from core.errors import MergekitError
from core.params import Scalar

Kind = Literal["float", "int", "bool"]
#: A value that mergekit insists on being given.
REQUIRED = None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a mergekit method.

    Attributes:
        per: `all` one value for the tensor, `input` one per model, `other` one per model that is not the base.
        default: REQUIRED where mergekit has none.
        effect: False where mergekit takes the value and its result does not depend on it.
        ours: our values by mergekit's, where they are others.
    """

    name: str
    kind: Kind
    per: Literal["all", "input", "other"]
    default: float | bool | None
    effect: bool = True
    ours: Mapping[Scalar, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A mergekit method.

    Attributes:
        base: whether it takes `base_model` as its base; where that is `ignored` a base is a model like the others.
        conventions: values of parameters that only we have, under which our method is mergekit's.
    """

    name: str
    base: Literal["required", "optional", "ignored"]
    parameters: tuple[Parameter, ...] = ()
    conventions: Mapping[str, Scalar] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """Parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}


def _shared(name: str, kind: Kind, default: float | bool | None, **more: Any) -> Parameter:
    return Parameter(name, kind, "all", default, **more)


def _other(name: str, default: float | None, **more: Any) -> Parameter:
    return Parameter(name, "float", "other", default, **more)


_RESCALE = {True: "l1", False: "none"}
_MASK = _shared("int8_mask", "bool", False, effect=False)


def _task_vectors(name: str, normalize: bool, rescale: bool, *more: Parameter, trims: bool = True) -> Method:
    """A member of mergekit's generalised task arithmetic."""
    density = _other("density", 1.0, effect=trims)
    return Method(
        name,
        "required",
        (
            _other("weight", REQUIRED),
            density,
            *more,
            _shared("normalize", "bool", normalize),
            _shared("rescale", "bool", rescale, effect=trims, ours=_RESCALE),
            _shared("lambda", "float", 1.0),
            _MASK,
        ),
        {"trim_scope": "tensor", "outliers": "tensor", "elect": "weighted"},
    )


_GAMMA, _EPSILON = _other("gamma", 0.01), _other("epsilon", 0.15)
_METHODS = (
    Method("linear", "ignored", (Parameter("weight", "float", "input", REQUIRED), _shared("normalize", "bool", True))),
    Method("slerp", "required", (_shared("t", "float", REQUIRED),)),
    Method(
        "nuslerp",
        "optional",
        (
            _other("weight", REQUIRED),
            _shared("nuslerp_row_wise", "bool", False),
            _shared("nuslerp_flatten", "bool", True),
        ),
    ),
    Method(
        "multislerp",
        "optional",
        (_other("weight", REQUIRED), _shared("normalize_weights", "bool", True), _shared("eps", "float", 1e-8)),
    ),
    Method("karcher", "ignored", (_shared("max_iter", "int", 10), _shared("tol", "float", 1e-5))),
    Method("nearswap", "required", (_shared("t", "float", REQUIRED),)),
    Method("arcee_fusion", "required"),
    Method("model_stock", "required", (_shared("filter_wise", "bool", False),)),
    Method("sce", "required", (_shared("select_topk", "float", 1.0), _MASK)),
    Method("ram", "required", (_shared("epsilon", "float", 1e-5),)),
    Method(
        "ramplus_tl",
        "required",
        (_shared("r", "float", 0.1), _shared("alpha", "float", 0.2), _shared("epsilon", "float", 1e-5)),
    ),
    Method("passthrough", "ignored", (Parameter("scale", "float", "input", 1.0),)),
    _task_vectors("task_arithmetic", False, False, trims=False),
    _task_vectors("ties", True, False),
    _task_vectors("dare_linear", False, True),
    _task_vectors("dare_ties", False, True),
    _task_vectors("breadcrumbs", False, False, _GAMMA),
    _task_vectors("breadcrumbs_ties", False, False, _GAMMA),
    _task_vectors("della", True, True, _EPSILON),
    _task_vectors("della_linear", False, True, _EPSILON),
)
METHODS = {method.name: method for method in _METHODS}
#: Every parameter that some method of mergekit takes.
PARAMETERS = frozenset(parameter.name for method in _METHODS for parameter in method.parameters)


def mergekit_method(name: str) -> Method:
    """mergekit's method of that name.

    Raises:
        MergekitError: it has none; names the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(METHODS))}"
    raise MergekitError(f"mergekit 0.1.5 has no merge method {name!r}: {hint}", where="merge_method")
