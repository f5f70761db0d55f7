"""Whether what becomes one layer attends in one way: a sliding layer and a full one have no layer in between."""

from __future__ import annotations

from collections.abc import Sequence

from core.architectures import LayerTypes
from core.errors import ParentsDoNotFitError
from core.meaning import FULL, SLIDING, meaning
from core.model import Header
from core.recipe.resolved import Entry


def attention_kinds(header: Header) -> tuple[str, ...]:
    """The kind of attention of every layer, said even where the config makes no difference between layers."""
    config, family = header.config_dict, header.architecture
    types = family.layer_types or LayerTypes(rule="listed")
    alike = FULL if meaning(config, family).get("sliding_window") is None else SLIDING
    return tuple(types.of(config, layer) or alike for layer in range(header.layers))


def check_attention(stack: Sequence[Entry], sources: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Check that all sources of a layer have one kind of attention there.

    Args:
        stack: the candidate's layers.
        sources: of each source its name and the kinds of its layers, in the order that the entries count them.

    Raises:
        ParentsDoNotFitError: names the layer, both sources and their kinds.
    """
    for place, entry in enumerate(stack):
        (first, kind), *others = ((sources[source][0], sources[source][1][layer]) for source, layer in entry.sources)
        for other, theirs in others:
            if theirs != kind:
                raise ParentsDoNotFitError(
                    f"what is merged into one layer must attend in one way, but layer {place} is {kind!r} in {first!r} "
                    f"and {theirs!r} in {other!r}: pair layers of one kind, or use fine-tunes of one base",
                    where="layer_types",
                )
