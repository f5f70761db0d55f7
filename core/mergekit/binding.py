"""What a slice's parameters are in a recipe: one value, or one per source, each in the recipe's forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from core.catalog import MethodInfo
from core.errors import MergekitError
from core.mergekit.inputs import Part
from core.mergekit.methods import PARAMETERS, REQUIRED, Method, Parameter
from core.mergekit.settings import Scope, complete, is_filters, settled
from core.params import ParamSpec
from core.recipe.resolve import SCALE

Note = Callable[[str], None]


def specs_of(info: MethodInfo) -> dict[str, ParamSpec]:
    """What our method takes, by name, `scale` included."""
    return {"scale": SCALE, **{spec.name: spec for spec in info.params}}


def bound(method: Method, info: MethodInfo, part: Part, names: Sequence[str], note: Note) -> dict[str, Any]:
    """The parameters of a part, without those that are our defaults.

    Args:
        method, info: mergekit's method and ours.
        part: with the settings.
        names: what its sources are called here.
        note: told what has no effect and what differs.

    Raises:
        MergekitError: a parameter that nobody knows, that is missing, or that our method does not take so.
    """
    _told_of_what_has_no_effect(method, part, note)
    binder = _Binder(specs_of(info), part, names, note)
    found: dict[str, Any] = {}
    for parameter in method.parameters:
        if parameter.effect:
            value = binder.shared(parameter) if parameter.per == "all" else binder.own(parameter)
            if binder.says_more_than_the_default(parameter, value):
                found[parameter.name] = value
    for name, value in method.conventions.items():
        if name in binder.specs and binder.specs[name].default != value:
            found[name] = value
    return found


class _Binder:
    def __init__(self, specs: Mapping[str, ParamSpec], part: Part, names: Sequence[str], note: Note) -> None:
        self.specs = specs
        self.part = part
        self.names = names
        self.note = note

    def shared(self, parameter: Parameter) -> Any:
        """One value for the tensor."""
        return self._otherwise(parameter, settled(parameter, self.part.scopes), "the configuration")

    def own(self, parameter: Parameter) -> Any:
        """One value where it is the same for every model, else one per model."""
        values = {}
        for position, (name, source) in enumerate(zip(self.names, self.part.sources, strict=True)):
            if parameter.per == "input" or position != self.part.base:
                model = source.key[0].text
                scopes = [(f"{model}: ", source.parameters), *self.part.scopes]
                values[name] = self._otherwise(parameter, settled(parameter, scopes), f"model {model!r}")
        found = list(values.values())
        same = all(value == found[0] for value in found)
        # Filters of a value per source are looked for in the source's own tensor names.
        if same and not (self.specs.get(parameter.name) is SCALE and is_filters(found[0])):
            return found[0] if found else None
        return values

    def _otherwise(self, parameter: Parameter, value: Any, whose: str) -> Any:
        """mergekit's default where nothing is given, and where filters leave something out."""
        default = parameter.default
        if default is REQUIRED:
            if value is None:
                raise MergekitError(
                    f"{whose} must have a value of {parameter.name!r}, but has none: give it in `parameters`",
                    where=parameter.name,
                )
            if is_filters(value) and "filter" in value[-1] and parameter.name in self.specs:
                self.note(
                    f"filters of {parameter.name!r} have no last resort: a tensor that none meets takes "
                    f"{self.specs[parameter.name].default!r} here, and stops mergekit."
                )
            return value
        ours = parameter.ours.get(default, default)
        return ours if value is None else complete(value, ours)

    def says_more_than_the_default(self, parameter: Parameter, value: Any) -> bool:
        """Whether the value has to be written.

        Raises:
            MergekitError: our method cannot be given it.
        """
        spec, default = self.specs.get(parameter.name), parameter.default
        if spec is None:
            if default is REQUIRED or value != parameter.ours.get(default, default):
                raise MergekitError(
                    f"{parameter.name!r} cannot be given here, but it is {value!r:.200}: remove it",
                    where=parameter.name,
                )
            return False
        if isinstance(value, Mapping) and spec.scope != "source" and spec is not SCALE:
            raise MergekitError(
                f"{parameter.name!r} must be the same for all models here, but got {value!r:.200}: give them one value",
                where=parameter.name,
            )
        return value is not None and (type(value), value) != (type(spec.default), spec.default)


def _told_of_what_has_no_effect(method: Method, part: Part, note: Note) -> None:
    for name, scope in part.scopes:
        _check_names(method, name, scope, ("all", "input", "other"), note)
    for position, source in enumerate(part.sources):
        heard = ("input",) if position == part.base else ("input", "other")
        _check_names(method, f"{source.key[0].text}: ", source.parameters, heard, note)


def _check_names(method: Method, place: str, scope: Scope, heard: Iterable[str], note: Note) -> None:
    for name, value in scope.items():
        if name not in PARAMETERS:
            raise MergekitError(
                f"no method of mergekit has a parameter {name!r}, but {place}{name} is {value!r:.100}: remove it",
                where=f"{place}{name}",
            )
        parameter = method.by_name.get(name)
        if parameter is None or not parameter.effect or parameter.per not in heard:
            note(f"{place}{name} has no effect on {method.name} in mergekit, nor here.")
