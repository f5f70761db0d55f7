"""What mergekit is asked: every method it has, under several settings, over the families that can tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

PLAIN = ("weights", "apart", "norm", "row", "one")
DELTAS = (*PLAIN, "grid", "sparse")
#: mergekit's value of a parameter: one for all inputs, or one per input.
Value = bool | int | float | dict[str, float]
Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One call of mergekit.

    Attributes:
        method: as mergekit calls it.
        family: which tensors.
        models: the inputs besides the base, in order.
        base: the input that is the base, if one is given; it comes last.
        parameters: as mergekit takes them.
        label: tells apart the settings of one method.
    """

    method: str
    label: str
    family: str
    models: tuple[str, ...]
    base: str | None
    parameters: dict[str, Value]

    @property
    def id(self) -> str:
        """The name under which the result is kept."""
        return f"{self.method}/{self.label}/{self.family}"

    def as_json(self) -> dict[str, Any]:
        """The case as the index holds it."""
        return {"id": self.id, **asdict(self)}


def cases() -> list[Case]:
    """Every case, each id once."""
    found = [
        *_averages(),
        *_spheres(),
        *_swaps(),
        *_sign_and_magnitude(),
        *_random_drops(),
        *_other_deltas(),
    ]
    assert len({case.id for case in found}) == len(found)
    return found


def each(a: float, b: float, c: float | None = None) -> dict[str, float]:
    """One value per model."""
    return {"a": a, "b": b} | ({} if c is None else {"c": c})


EQUAL, MIXED, SIGNED = each(1.0, 1.0, 1.0), each(0.6, 1.2, 0.4), each(0.8, -0.5, 0.35)


def _case(
    method: str,
    label: str,
    families: tuple[str, ...],
    models: str = "abc",
    base: str | None = None,
    **parameters: Value,
) -> Iterator[Case]:
    given = {("lambda" if name == "lambda_" else name): value for name, value in parameters.items()}
    for family in families:
        yield Case(method, label, family, tuple(models), base, given)


def _averages() -> Iterator[Case]:
    families = (*PLAIN, "cube", "unequal")
    yield from _case("linear", "soup", families, weight=EQUAL)
    yield from _case("linear", "mixed", families, weight=MIXED)
    yield from _case("linear", "sum of signed", families, weight=SIGNED, normalize=False)
    yield from _case("linear", "mean of signed", families, weight=SIGNED)
    yield from _case("linear", "two", ("apart",), "ab", weight=each(0.9, 0.1))
    yield from _case("passthrough", "plain", ("apart", "norm"), "a")
    yield from _case("passthrough", "scaled", ("apart", "norm"), "a", scale={"a": -1.3})


def _spheres() -> Iterator[Case]:
    ends = (*PLAIN, "cube", "unequal", "opposite", "against", "parallel", "zero")
    for t in (0.0, 0.3, 0.5, 1.0):
        yield from _case("slerp", f"t {t}", ends if t == 0.3 else ("apart", "norm"), "b", "a", t=t)
    yield from _nuslerp(ends)
    yield from _multislerp(ends)
    yield from _case("karcher", "default", ends)
    yield from _case("karcher", "two", ("apart", "opposite", "against", "unequal"), "ab")
    yield from _case("karcher", "one step", ("apart", "norm", "cube"), max_iter=1)
    yield from _case("karcher", "long and fine", ("apart", "unequal", "weights"), max_iter=200, tol=1e-9)
    yield from _case("karcher", "coarse", ("apart", "unequal"), tol=0.3)


def _nuslerp(families: tuple[str, ...]) -> Iterator[Case]:
    pair = each(0.3, 0.9)
    for base in (None, "base"):
        name = "deltas" if base else "whole"
        yield from _case("nuslerp", name, families, "ab", base, weight=pair)
        small = ("apart", "norm", "unequal", "row")
        rows: Settings = {"nuslerp_flatten": False}
        yield from _case("nuslerp", f"{name} by last axis", (*small, "cube"), "ab", base, weight=pair, **rows)
        columns: Settings = {**rows, "nuslerp_row_wise": True}
        yield from _case("nuslerp", f"{name} by first axis", (*small, "cube"), "ab", base, weight=pair, **columns)
        yield from _case("nuslerp", f"{name} signed", small, "ab", base, weight=each(1.5, -0.5))
        yield from _case("nuslerp", f"{name} cancelling", ("apart",), "ab", base, weight=each(1.0, -1.0))


def _multislerp(families: tuple[str, ...]) -> Iterator[Case]:
    for base in (None, "base"):
        name = "deltas" if base else "whole"
        yield from _case("multislerp", name, families, base=base, weight=MIXED)
        yield from _case(
            "multislerp", f"{name} raw", ("apart", "norm"), base=base, weight=MIXED, normalize_weights=False
        )
        yield from _case("multislerp", f"{name} signed", ("apart", "unequal"), base=base, weight=SIGNED)
        yield from _case("multislerp", f"{name} two", ("apart", "opposite"), "ab", base, weight=each(1.0, 1.0))
        yield from _case("multislerp", f"{name} wide eps", ("apart", "unequal"), base=base, weight=MIXED, eps=1e-3)
        yield from _case("multislerp", f"{name} alone", ("apart",), "a", base, weight={"a": 0.5})
        raw: Settings = {"weight": {"a": 0.5}, "normalize_weights": False}
        yield from _case("multislerp", f"{name} alone raw", ("apart",), "a", base, **raw)
        yield from _case("multislerp", f"{name} balanced", ("opposite",), base=base, weight=each(1.0, 1.0, 0.0))


def _swaps() -> Iterator[Case]:
    families = (*PLAIN, "grid", "sparse", "cube")
    for t in (0.0, 1e-5, 0.02, 10.0):
        yield from _case("nearswap", f"t {t}", families if t == 0.02 else ("apart", "weights", "grid"), "b", "a", t=t)
    yield from _case("nearswap", "tiny t", ("weights",), "b", "a", t=1e-7)
    yield from _case("arcee_fusion", "default", (*families, "opposite", "zero"), "b", "a")


def _sign_and_magnitude() -> Iterator[Case]:
    yield from _case("task_arithmetic", "sum", DELTAS, base="base", weight=MIXED)
    yield from _case("task_arithmetic", "mean", DELTAS, base="base", weight=MIXED, normalize=True, lambda_=0.7)
    yield from _case("task_arithmetic", "signed", ("apart", "norm"), base="base", weight=SIGNED, lambda_=1.4)
    cancelling = each(1.0, -0.6, -0.4)
    yield from _case("task_arithmetic", "cancelling", ("apart",), base="base", weight=cancelling, normalize=True)
    for method, families in (("ties", DELTAS), ("breadcrumbs", DELTAS), ("breadcrumbs_ties", DELTAS)):
        mixed: Settings = {"weight": MIXED, "density": each(0.3, 0.75, 1.0)}
        yield from _case(method, "mixed", families, base="base", **mixed)
        yield from _case(method, "normalised", ("apart", "row", "sparse"), base="base", **mixed, normalize=True)
        yield from _case(
            method, "summed", ("apart", "row", "sparse"), base="base", **mixed, normalize=False, lambda_=0.7
        )
        signed: Settings = {"weight": SIGNED, "density": each(0.5, 0.5, 0.5)}
        yield from _case(method, "signed", ("apart", "norm", "grid"), base="base", **signed)
        yield from _case(method, "rescaled", ("apart", "norm", "sparse"), base="base", **signed, rescale=True)
        yield from _case(method, "thin", DELTAS, base="base", weight=EQUAL, density=0.1)
    for method in ("breadcrumbs", "breadcrumbs_ties"):
        settings: Settings = {"weight": MIXED, "density": each(0.5, 0.4, 0.9)}
        yield from _case(method, "no outliers", ("apart", "row", "one"), base="base", **settings, gamma=0.0)
        yield from _case(method, "many outliers", ("apart", "norm", "grid"), base="base", **settings, gamma=0.2)
        gammas = each(0.05, 0.5, 0.3)
        yield from _case(method, "outliers each", ("apart", "norm"), base="base", **settings, gamma=gammas)


def _random_drops() -> Iterator[Case]:
    mixed: Settings = {"weight": MIXED, "density": each(0.3, 0.75, 1.0)}
    signed: Settings = {"weight": SIGNED, "density": each(0.5, 0.5, 0.5)}
    few = ("apart", "norm", "sparse")
    for method in ("dare_linear", "dare_ties", "della", "della_linear"):
        yield from _case(method, "mixed", DELTAS, base="base", **mixed)
        yield from _case(method, "plain", DELTAS, base="base", **mixed, rescale=False)
        yield from _case(method, "normalised", few, base="base", **mixed, normalize=True, rescale=False)
        yield from _case(method, "summed", few, base="base", **signed, normalize=False, lambda_=0.7)
    for method in ("dare_linear", "dare_ties"):
        yield from _case(method, "thin", DELTAS, base="base", weight=EQUAL, density=0.05)
    for method in ("della", "della_linear"):
        yield from _case(method, "narrow", few, base="base", **signed, epsilon=0.01, rescale=False)
        yield from _case(method, "wide", few, base="base", **signed, epsilon=0.45)
        epsilons = each(0.1, 0.2, 0.4)
        yield from _case(method, "epsilon each", few, base="base", **signed, epsilon=epsilons, rescale=False)


def _other_deltas() -> Iterator[Case]:
    yield from _case("model_stock", "whole", DELTAS, base="base")
    yield from _case("model_stock", "rows", DELTAS, base="base", filter_wise=True)
    yield from _case("model_stock", "two", ("apart", "opposite"), "ab", "base")
    yield from _case("model_stock", "disagreeing", ("opposite",), base="base")
    families = (*DELTAS, "opposite", "unequal")
    for share in (1.0, 0.5, 0.1, 0.0):
        yield from _case(
            "sce", f"top {share}", families if share > 0.1 else ("apart", "grid"), base="base", select_topk=share
        )
    yield from _case("sce", "alone", ("apart",), "a", "base", select_topk=0.5)
    yield from _case("ram", "default", families, base="base")
    yield from _case("ram", "coarse", ("apart", "norm", "sparse"), base="base", epsilon=0.05)
    yield from _case("ramplus_tl", "default", families, base="base")
    yield from _case("ramplus_tl", "strong", ("apart", "norm", "sparse"), base="base", epsilon=0.05, r=0.5, alpha=2.0)
