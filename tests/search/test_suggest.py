import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from studies import merges, space

from core.params import ChoiceParam, FloatParam, IntParam
from search.suggest import distribution, distributions, draw, suggest


def test_parameters_become_the_distributions_of_their_searched_interval():
    number = FloatParam(name="x", default=1.0, low=0.0, search_low=0.1, search_high=2.0, log=True)
    whole = IntParam(name="m", default=2, low=1, search_low=1, search_high=9)
    choice = ChoiceParam(name="c", default="a", choices=("a", "b"))
    assert distribution(number) == FloatDistribution(0.1, 2.0, log=True)
    assert distribution(whole) == IntDistribution(1, 9)
    assert distribution(choice) == CategoricalDistribution(("a", "b"))


def test_only_active_holes_are_asked_for_and_in_hole_order():
    compiled, study = space(), optuna.create_study()
    for _ in range(20):
        trial = study.ask()
        values = suggest(trial, compiled)
        assert list(values) == [hole.name for hole in compiled.active(values)]
        assert trial.params == values
        assert trial.distributions == distributions(compiled, values)
        compiled.check(values)


def test_uniform_draws_fill_the_space_and_depend_on_seed_and_number_alone():
    compiled = space()
    found = [draw(compiled, 5, number) for number in range(200)]
    assert found == [draw(compiled, 5, number) for number in range(200)]
    assert found[0] != draw(compiled, 6, 0)
    for values in found:
        compiled.check(values)
    merged = sum(values["family"] == "merge" for values in found)
    assert 70 <= merged <= 130


def test_uniform_draws_on_a_log_scale_have_their_median_in_the_geometric_middle():
    compiled = merges("task_arithmetic", params={"weight": {"low": 0.01, "high": 1.0, "log": True}})
    name = "merge.task_arithmetic.weight.a"
    drawn = sorted(draw(compiled, 1, number)[name] for number in range(401))
    assert 0.07 <= drawn[200] <= 0.14
    assert drawn[0] >= 0.01
    assert drawn[-1] <= 1.0
