import pytest
from studies import LAYOUT, MERGE, SAMPLES, merges, space

from search.stacks import stacks


def layouts(compiled):
    return [
        (found.layout.preset, found.layout.source, found.layout.params)
        for found in map(compiled.fill, stacks(compiled))
    ]


def test_of_32_layers_each_copy_loses_the_8_of_the_paper_and_of_others_as_large_a_share():
    assert layouts(space(depth=32)) == [("dus", "a", {"m": 8}), ("idus", "a", {"m": 8, "block": 8})]
    assert layouts(space(depth=20))[0] == ("dus", "a", {"m": 5})
    assert layouts(space(depth=2))[0] == ("dus", "a", {"m": 1})
    # A search removes at most 16.
    assert layouts(space(depth=80))[0] == ("dus", "a", {"m": 16})


@pytest.mark.parametrize(
    ("compiled", "presets"),
    [
        (space(), ["dus", "idus"]),
        (space(LAYOUT), ["dus", "idus"]),
        (space(LAYOUT | {"presets": ["idus"]}), ["idus"]),
        (space(LAYOUT | {"presets": ["repeat", "dus"], "sources": ["b"]}), ["dus"]),
        (space(LAYOUT | {"repeated": {"output": {"low": 0.5, "high": 1.5}}}), ["dus", "idus"]),
        (space(MERGE, SAMPLES), []),
        (merges("linear"), []),
    ],
)
def test_every_stack_lies_in_the_space(compiled, presets):
    found = stacks(compiled)
    for values in found:
        compiled.check(values)
        assert compiled.read(compiled.fill(values)) == values
    assert [compiled.fill(values).layout.preset for values in found] == presets
