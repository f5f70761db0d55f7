import pytest

from core.draws import LEAST_RADIUS
from core.errors import RadiusLostError, SpaceError, UnknownModelError
from core.params import ChoiceParam
from core.recipe import Merge, Recipe, Source
from core.space import SearchSpace
from core.space_spec import GenerationFamily, Interval, MergeFamily, SpaceSpec

GENERATOR = "ab" * 32


def space(*, seed=7, models=("base", "a"), others=(), save_dtype="bfloat16", **fields):
    family = GenerationFamily(**{"generator": GENERATOR, **fields})
    return SearchSpace(SpaceSpec(families=(*others, family)), models, depth=4, save_dtype=save_dtype, seed=seed)


def defaults(within, **changes):
    values = {}
    for hole in within.holes:
        if hole.active({**values, **changes}):
            value = changes.get(hole.name, hole.spec.default)
            if not isinstance(hole.spec, ChoiceParam):
                value = min(max(value, hole.spec.search_low), hole.spec.search_high)
            values[hole.name] = value
    return values


@pytest.mark.parametrize("arm", ["diffusion", "posterior", "matched-noise", "parent-average"])
@pytest.mark.parametrize("fields", [{}, {"subspace": 0}, {"radius": False}, {"layer_groups": 2, "mode": "absolute"}])
def test_filling_and_reading_are_inverse_for_every_arm(arm, fields):
    within = space(arms=("diffusion", "posterior", "matched-noise", "parent-average"), **fields)
    values = defaults(within, **{"generation.arm": arm})
    recipe = within.fill(values)
    assert recipe.generation is not None
    assert recipe.generation.arm == arm
    assert within.read(recipe) == values


def test_the_seed_is_no_hole_but_follows_from_the_study_and_the_values():
    within = space(subspace=0, arms=("diffusion",))
    assert not any("seed" in hole.name for hole in within.holes)
    one, other = (defaults(within, **{"generation.diffusion.rho": rho}) for rho in (0.01, 0.02))
    seeds = [within.fill(values).generation.seed for values in (one, other, one)]
    assert seeds[0] == seeds[2] != seeds[1]
    assert space(subspace=0, arms=("diffusion",), seed=8).fill(one).generation.seed != seeds[0]


def test_a_subspace_has_coefficients_over_the_same_samples():
    within = space(subspace=3, arms=("diffusion",))
    draws = [within.fill(defaults(within, **{"generation.diffusion.a1": value})).generation for value in (0.5, -0.5)]
    assert [draw.seed for draw in draws] == [7, 7]
    assert [draw.coefficients for draw in draws] == [(1.0, 0.5, 0.0), (1.0, -0.5, 0.0)]


def test_what_is_searched_depends_on_whether_there_is_a_radius():
    def searched(**fields):
        names = [hole.name for hole in space(subspace=0, arms=("diffusion",), **fields).holes]
        return {name.removeprefix("generation.diffusion.") for name in names}

    assert searched() == {"rho", "tau"}
    assert searched(radius=False) == {"strength", "tau", "blend"}
    assert searched(params={"rho": 0.02, "guidance": Interval(low=0.5, high=2.0)}) == {"tau", "guidance"}
    assert space(subspace=0, arms=("matched-noise",)).holes[0].name == "generation.matched-noise.rho"


def test_fixed_values_enter_every_candidate():
    within = space(arms=("diffusion",), subspace=0, params={"rho": 0.02, "steps": 10})
    draw = within.fill(defaults(within)).generation
    assert (draw.rho, draw.steps) == (0.02, 10)


def test_samples_lie_around_the_base_or_around_a_recipe():
    plain = space(arms=("posterior",)).fill(defaults(space(arms=("posterior",))))
    assert [source.model for source in plain.sources] == ["base"]
    inner = Recipe(
        sources=(Source(name="base", model="base"), Source(name="a", model="a")),
        merge=Merge(method="linear", params={"weight": 1.0}),
    )
    within = space(arms=("posterior",), around=inner)
    assert within.fill(defaults(within)).sources[0].recipe == inner


def test_families_mix():
    merges = MergeFamily(methods=("slerp",), sources=("base", "a"))
    within = space(others=(merges,), models=("base", "a", "b"), arms=("diffusion",), subspace=0)
    values = defaults(within, family="generation")
    assert "merge.slerp.t" not in values
    assert within.read(within.fill(values)) == values


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UnknownModelError):
        space(base="c")
    with pytest.raises(SpaceError, match="no chosen arm"):
        space(arms=("posterior",), params={"strength": 0.5})
    with pytest.raises(SpaceError, match="rho"):
        space(params={"rho": Interval(low=0.1, high=9.0)})
    named = space(generator="gen_01H", arms=("posterior",))
    with pytest.raises(SpaceError, match="generator"):
        named.fill(defaults(named))


def test_a_space_of_which_a_part_is_closed_takes_nothing_of_it():
    merges = MergeFamily(methods=("linear",))
    spec = SpaceSpec(families=(merges, GenerationFamily(generator=GENERATOR)))
    whole, closed = (SearchSpace(spec, ("base", "a"), depth=4, closed=names) for names in ((), ("generation",)))
    values = defaults(whole, family="generation", **{"generation.arm": "diffusion"})
    recipe = whole.fill(values)
    with pytest.raises(SpaceError):
        closed.check(values)
    with pytest.raises(SpaceError):
        closed.read(recipe)


def test_a_family_with_a_generator_of_its_own_stands_last_and_is_about_what_its_preset_is():
    own = {"family": "generation", "generator": {"train_after": 2, "preset": "blocks"}}
    spec = SpaceSpec.model_validate({"families": [own, {"family": "merge", "methods": ["linear"]}]})
    assert [family.family for family in spec.families] == ["merge", "generation"]
    last = spec.families[-1]
    assert last.selectors == ("block:-1",) == last.settings.selectors
    assert last.settings.width == 1024
    assert SpaceSpec.model_validate_json(spec.model_dump_json()) == spec


def test_an_opened_family_samples_around_the_best_where_that_was_asked_for():
    best = Recipe(sources=(Source(name="a", model="a"),), merge=Merge(method="passthrough"))
    family = GenerationFamily(generator={"train_after": 2}, around="best", base="base")
    opened = family.opened(GENERATOR, best)
    assert (opened.generator, opened.around, opened.base) == (GENERATOR, best, None)
    plain = GenerationFamily(generator={"train_after": 2}, base="a").opened(GENERATOR, best)
    assert (plain.around, plain.base) == (None, "a")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"generator": GENERATOR, "around": "best"}, "own generator"),
        ({"generator": {"train_after": 0}, "around": "best"}, "above 0"),
        ({"generator": {"train_after": 1, "training": {"selectors": ["norms"]}}}, "in the family alone"),
        ({"generator": {"train_after": 1, "training": {"chunk": 1}}}, "chunk"),
        ({"generator": {"train_after": 1, "preset": "blcks"}}, "blocks"),
    ],
)
def test_what_makes_no_sense_of_a_generator_of_its_own_is_refused(fields, why):
    with pytest.raises(ValueError, match=why):
        GenerationFamily(**fields)


def test_a_generator_that_learns_from_candidates_needs_another_family_to_find_them():
    own = {"family": "generation", "generator": {"train_after": 1}}
    with pytest.raises(ValueError, match="another family"):
        SpaceSpec.model_validate({"families": [own]})
    assert SpaceSpec.model_validate({"families": [{**own, "generator": {"train_after": 0}}]})


@pytest.mark.parametrize(("dtype", "low"), [("bfloat16", 2**-7), ("float16", 0.001), ("float32", 0.001)])
def test_radii_are_searched_from_where_the_storage_dtype_keeps_them(dtype, low):
    (hole,) = space(arms=("matched-noise",), save_dtype=dtype).holes
    assert (hole.spec.search_low, hole.spec.search_high) == (low, 0.3)


@pytest.mark.parametrize("rho", [0.004, Interval(low=0.004, high=0.1, log=True)])
@pytest.mark.parametrize(("dtype", "refused"), [("bfloat16", True), ("float16", False), ("float32", False)])
def test_a_radius_that_the_storage_dtype_loses_is_refused_and_the_way_out_is_told(rho, dtype, refused):
    if not refused:
        assert space(params={"rho": rho}, save_dtype=dtype).holes
        return
    with pytest.raises(RadiusLostError, match=r"`rho` begins at 0.004: take 0.0078125 or more, or .* float32") as told:
        space(params={"rho": rho}, save_dtype=dtype)
    assert (told.value.code, told.value.where) == ("radius_lost", "rho")
    assert space(params={"rho": LEAST_RADIUS[dtype]}).holes
