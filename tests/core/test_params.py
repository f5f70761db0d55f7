import math

import pytest

from core.errors import RecipeError
from core.params import ChoiceParam, FloatParam, IntParam, check_value

FREE = FloatParam(name="weight", default=1.0, search_low=0.0, search_high=1.0)
WHOLE = IntParam(name="m", default=1, search_low=1, search_high=4)
CHOICE = ChoiceParam(name="c", default=1.0, choices=(1.0, 2.0))


@pytest.mark.parametrize("spec", [FREE, WHOLE, CHOICE])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)], ids=lambda v: str(v)[:6])
def test_a_value_that_no_float_holds_is_refused_by_name(spec, value):
    with pytest.raises(RecipeError, match=r"a\.b must be") as found:
        check_value(spec, value, where="a.b")
    assert found.value.where == "a.b"
    assert len(found.value.message) < 300


def test_the_largest_float_is_a_value():
    assert check_value(FREE, 1.7976931348623157e308, where="x") == 1.7976931348623157e308
    assert check_value(FREE, 3, where="x") == 3.0
    assert check_value(WHOLE, 2.0, where="x") == 2
