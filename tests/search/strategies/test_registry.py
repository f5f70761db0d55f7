import pytest
from studies import space

from core.catalog import StrategyInfo, catalog
from core.errors import InvalidInputError, UnknownNameError, UnknownStrategyError
from search.strategies import collect, make_sampler, strategies, strategy
from search.strategy import Strategy


def test_the_catalogue_lists_exactly_the_registered_strategies():
    assert tuple(found.info for found in strategies().values()) == catalog().strategies


def test_a_name_taken_twice_is_refused():
    twin = Strategy(info=StrategyInfo(name="tpe", summary="another"), make=strategy("tpe").make)
    with pytest.raises(ValueError, match="two strategies are called 'tpe'"):
        collect([strategy("tpe"), twin])


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownStrategyError, match="did you mean 'random'"):
        strategy("rnadom")


@pytest.mark.parametrize(
    ("params", "error"),
    [({"startpu": 3}, UnknownNameError), ({"startup": 0}, InvalidInputError), ({"startup": [3]}, InvalidInputError)],
)
def test_wrong_parameters_are_refused(params, error):
    with pytest.raises(error, match="startup") as caught:
        make_sampler("tpe", space(), seed=1, params=params)
    assert type(caught.value) is error


def test_defaults_are_filled_in():
    assert strategy("tpe").info.filled({}) == {"startup": 10}
    assert strategy("tpe").info.filled({"startup": 4}) == {"startup": 4}
