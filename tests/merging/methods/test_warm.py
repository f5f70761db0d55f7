"""From candidate to candidate, nothing is looked at again and nothing would be compiled again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.params import FloatParam
from merging import magnitudes
from merging.methods import method_of
from merging.statistics import Statistics

METHODS = [
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "sce",
    "ram",
    "ramplus_tl",
]
ROWS = {"breadcrumbs": {"outliers": "row"}, "breadcrumbs_ties": {"outliers": "row"}}
WAYS = [(name, {}) for name in METHODS] + list(ROWS.items())


class Counted(Statistics):
    """Counts what is made."""

    made = 0

    def number(self, key, make):
        return super().number(key, lambda: self._count(make))

    def tensors(self, key, make):
        return super().tensors(key, lambda: self._count(make))

    def _count(self, make):
        self.made += 1
        return make()


@pytest.mark.parametrize(("name", "chosen"), WAYS)
def test_other_numbers_ask_for_no_other_statistics_and_no_other_kernel(inputs_of, arrays, monkeypatch, name, chosen):
    monkeypatch.setattr(magnitudes, "SMALL", 0)
    method, statistics = method_of(name), Counted()
    floats = [spec for spec in method.info.params if isinstance(spec, FloatParam) and spec.name != "epsilon"]
    steps = []
    for share in (0.31, 0.57, 0.83):
        given = {spec.name: spec.default for spec in method.info.params} | chosen
        given |= {spec.name: spec.search_low + share * (spec.search_high - spec.search_low) for spec in floats}
        inputs = inputs_of([array[:200] for array in arrays[:2]], arrays[3][:200], **given)
        steps.append(method.kernel(replace(inputs, statistics=statistics)))
        if share == 0.31:
            made = statistics.made
    assert statistics.made == made
    first, *others = steps
    for other in others:
        assert other.formula is first.formula
        assert other.flags == first.flags
        assert other.indexed == first.indexed
        assert (len(other.numbers), len(other.words)) == (len(first.numbers), len(first.words))
        assert [f.data_ptr() for f in other.fields] == [f.data_ptr() for f in first.fields]
        assert (other.numbers, other.words) != (first.numbers, first.words) or name == "ram"


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "sce"])
def test_with_and_without_room_for_statistics_the_steps_give_one_result(inputs_of, arrays, monkeypatch, name):
    monkeypatch.setattr(magnitudes, "SMALL", 0)
    method = method_of(name)
    given = {spec.name: spec.default for spec in method.info.params}
    halves = [np.round(array * 64) / 64 for array in arrays]
    steps = [
        method.kernel(
            inputs_of(halves[:2], halves[3], room=room, **given | {"density": density, "select_topk": density})
        )
        for density in (0.2, 0.4)
        for room in (0, 1 << 28)
    ]
    for narrow, wide in zip(steps[::2], steps[1::2], strict=True):
        assert narrow.numbers == wide.numbers
        assert narrow.words[::2] == wide.words[::2]
