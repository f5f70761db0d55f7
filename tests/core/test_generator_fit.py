import json

import pytest

from core.errors import GeneratorMisfitError, MissingGeneratorError, ParentsDoNotFitError, SelectorError
from core.generator_fit import Learned, check_lineage, check_sources, read_lineage
from core.jobs import read_job
from core.model import Model
from tests.api.seeds import digest, header

BASE, OTHER = (
    Model(name=name, ref=f"local:{name}", weights_digest=digest(name), header=header(layers=4)) for name in ("a", "b")
)
REFS = [{"name": name, "ref": f"local:{name}"} for name in ("a", "b")]


def training(**changes):
    return read_job({"kind": "generator", "models": REFS} | changes)


def search(**family):
    wanted = {"family": "generation", "generator": "0" * 64, **family}
    fields = {"models": REFS, "objective": {"tasks": [{"task": "arc_easy"}]}, "budget": {"trials": 1}}
    return read_job(fields | {"space": {"families": [wanted]}})


def learned(*models):
    """Of these models, the norms."""
    names = tuple(info.name for info in BASE.header.tensors if info.name.endswith("norm.weight"))
    return Learned(tuple(model.weights_digest for model in models), names)


def test_sources_of_one_shape_fit_and_others_do_not():
    check_sources(training(), {"a": BASE, "b": OTHER})
    deeper = OTHER.evolve(header=header(layers=5))
    with pytest.raises(ParentsDoNotFitError):
        check_sources(training(), {"a": BASE, "b": deeper})


def test_a_selector_must_find_something_in_the_base_once_that_is_known():
    job = training(training={"selectors": ["block:4"]})
    check_sources(job, {"b": OTHER})
    with pytest.raises(SelectorError):
        check_sources(job, {"a": BASE})


def test_a_generator_samples_only_around_what_it_was_trained_on():
    known = {"a": BASE, "b": OTHER}

    def seen(_digest):
        return learned(BASE)

    check_lineage(search(), known, seen)  # The first model is the base.
    check_lineage(search(base="b"), {"a": BASE}, seen)  # Nothing is known of b yet.
    with pytest.raises(GeneratorMisfitError, match=OTHER.weights_digest):
        check_lineage(search(base="b"), known, seen)


def test_a_generator_samples_only_tensors_that_it_has_learned():
    known = {"a": BASE, "b": OTHER}
    with pytest.raises(GeneratorMisfitError, match=r"it does not know 'model.layers.3.*train it with these") as told:
        check_lineage(search(selectors=["norms", "block:-1"]), known, lambda _: learned(BASE))
    assert told.value.where == "selectors"
    with pytest.raises(SelectorError):
        check_lineage(search(selectors=["block:9"]), known, lambda _: learned(BASE))


def test_everything_in_a_recipe_that_is_sampled_around_must_be_known_to_the_generator():
    merge = {
        "sources": [{"name": "x", "model": "a"}, {"name": "y", "model": "b"}],
        "merge": {"method": "linear", "params": {"weight": 0.5}},
    }
    known = {"a": BASE, "b": OTHER}
    check_lineage(search(around=merge), known, lambda _: learned(BASE, OTHER))
    with pytest.raises(GeneratorMisfitError):
        check_lineage(search(around=merge), known, lambda _: learned(BASE))


def test_a_lineage_is_read_from_the_folder_or_said_to_be_gone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"lineage": ["x", "y"], "tensors": [{"name": "n"}]}))
    assert read_lineage(tmp_path) == (("x", "y"), ("n",))
    with pytest.raises(MissingGeneratorError):
        read_lineage(tmp_path / "gone")
