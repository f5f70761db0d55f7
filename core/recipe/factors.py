"""Factors on what a layer computes, folded into its weights, so that the result is a checkpoint like any other.

Attention logits. A factor f on the logits of a layer is sqrt(f) on its queries and on its keys: rotary embeddings
turn both without changing their length. Where queries and keys are normalised, the norm would undo a factor on what
goes in, so it is the norm's weight that is scaled. (Where logits are capped, f acts before the cap.)

Outputs. A factor on what a layer adds to the residual stream is a factor on the weight and the bias of its last
projections; where these are normalised before they are added, on the weight of that norm.

The residual stream. A path multiplies the stream by c_j as it enters layer j. Write x_j for the stream that layer j
then sees, C_j = c_1 ... c_j, and y_j = x_j / C_j. With x_{j+1} = c_{j+1} (x_j + F_j(x_j)),

    y_{j+1} = x_{j+1} / C_{j+1} = y_j + F_j(x_j) / C_j = y_j + F_j(y_j) / C_j,

because every sublayer begins with a norm, and norm(C y) = norm(y) for C > 0. So y obeys an ordinary network whose
layer j adds its outputs divided by C_j, and the final norm gives for y what it gives for x. What differs is the
norm's epsilon alone: on y it acts as C_j^2 times epsilon would act on x.

A norm that multiplies by 1 + w (Gemma) takes w to f (1 + w) - 1 = f w + (f - 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from core.architectures import Architecture, Fused, Scaling
from core.errors import LayoutError
from core.model import Header
from core.noun import canonical_json
from core.recipe.limits import MAX_GATHERED
from core.recipe.resolved import Entry, Group, Part
from core.recipe.short import Repeated

#: float32's own bounds on a factor.
SMALLEST, LARGEST = 2.0**-126, 2.0**127


def with_factors(
    stack: Iterable[Entry], repeated: Repeated | None, streams: Sequence[float] | None, header: Header
) -> Iterator[Entry]:
    """The stack with the factors of repeated layers and of a path.

    Args:
        stack: the output layers.
        repeated: what a layer that stood there before gets; None for nothing.
        streams: C_j for every output layer; None for no path.
        header: of one of the models, for the family and the sizes of its heads.

    Raises:
        LayoutError: the family's weights cannot take the factor, or float32 cannot hold all that meet in one of them.
    """
    seen = set()
    for place, entry in enumerate(stack):
        again = repeated is not None and entry.sources in seen
        seen.add(entry.sources)
        logits, output = (repeated.attention, repeated.output) if repeated is not None and again else (1.0, 1.0)
        if streams is not None:
            output /= _gathered(streams[place], place)
        yield _factored(entry, logits, output, header)


def _gathered(factor: float, place: int) -> float:
    """The product of factors, if it is far from where it would erase a weight or make it infinite."""
    if not 1.0 / MAX_GATHERED <= abs(factor) <= MAX_GATHERED:
        raise LayoutError(
            f"factors may gather to within 2^-80 and 2^80, but those on layer {place} come to {factor!r}: take scales "
            "nearer to 1",
            where="scales",
        )
    return factor


def _factored(entry: Entry, logits: float, output: float, header: Header) -> Entry:
    """The entry with `logits` on its attention logits and `output` on its outputs."""
    if logits == 1.0 and output == 1.0:
        return entry
    family = header.architecture
    scaling = family.scaling
    if scaling is None:
        raise LayoutError(f"layers of {family.model_type!r} cannot be scaled: leave out `repeated` and scales")
    groups = {tensor: group for group in entry.groups for tensor in group.tensors}
    wanted = [*_logits(scaling, logits, header), *((name, output, None) for name in scaling.outputs)]
    changed = {
        name: _scaled(groups[name], factor, part, name in scaling.centred)
        for name, factor, part in wanted
        if name in groups and (factor != 1.0 or part is not None)
    }
    _check_reached(scaling, logits, output, changed, family)
    return entry.evolve(groups=_regrouped({**groups, **changed}))


def _logits(scaling: Scaling, logits: float, header: Header) -> Iterator[tuple[str, float, Part | None]]:
    """(tensor, factor, factor on a part) for every tensor that a factor on the attention logits goes to."""
    if logits == 1.0:
        return
    root = math.sqrt(logits)
    yield from ((name, root, None) for name in scaling.logits)
    if scaling.fused is not None:
        part = _queries_and_keys(scaling.fused, header, root)
        yield from ((name, 1.0, part) for name in scaling.fused.tensors)


def _queries_and_keys(fused: Fused, header: Header, root: float) -> Part:
    """The rows (columns in GPT-2) of a fused projection that make queries and keys."""
    config, family = header.config_dict, header.architecture
    heads = int(config[family.heads_key])
    width = int(config.get("head_dim") or int(config[family.width_key]) // heads)
    if fused.order == "heads":
        return Part(axis=fused.axis, period=3 * width, length=2 * width, scale=root)
    groups = int(config.get("num_key_value_heads") or heads)
    return Part(axis=fused.axis, period=(heads + 2 * groups) * width, length=(heads + groups) * width, scale=root)


def _scaled(group: Group, factor: float, part: Part | None, centred: bool) -> Group:
    shift = factor * group.shift + (factor - 1.0 if centred else 0.0)
    scale = group.scale * factor
    if group.scale != 0.0 and not SMALLEST <= abs(scale) <= LARGEST:
        raise LayoutError(
            f"a factor must leave weights that float32 can hold, but {group.scale!r} times {factor!r} on tensor "
            f"{group.tensors[0]!r} does not: take a `scale` nearer to 1",
            where="scale",
        )
    return group.evolve(scale=scale, shift=shift, part=part or group.part)


def _check_reached(
    scaling: Scaling, logits: float, output: float, changed: dict[str, Group], family: Architecture
) -> None:
    """No factor may get lost because a layer's tensors have other names than the family's."""
    takers = (*scaling.logits, *(scaling.fused.tensors if scaling.fused else ()))
    for factor, names in ((logits, takers), (output, scaling.outputs)):
        if factor != 1.0 and not set(names) & set(changed):
            raise LayoutError(f"a layer of {family.model_type!r} has one of {names!r} to scale, but this one has none")


def _regrouped(tensors: dict[str, Group]) -> tuple[Group, ...]:
    """Groups of tensors with equal values, ordered by their first tensor."""
    found: dict[str, list[str]] = {}
    for name in sorted(tensors):
        found.setdefault(canonical_json(tensors[name].model_dump(exclude={"tensors"})), []).append(name)
    return tuple(tensors[names[0]].evolve(tensors=tuple(names)) for names in found.values())
