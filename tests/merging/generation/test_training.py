import json

import pytest
import torch

from core.draws import Draw
from core.errors import (
    CancelledError,
    ConflictError,
    GeneratorError,
    GeneratorMisfitError,
    InvalidInputError,
    MissingGeneratorError,
    NonFiniteCheckpointError,
    SelectorError,
    TrainingDivergedError,
)
from core.generators import training
from core.model import Header, TensorInfo
from merging.generation.artifact import digest_at, load, save
from merging.generation.dataset import Source, dataset_of
from merging.generation.denoiser import Denoiser
from merging.generation.sampling import sampled
from merging.generation.training import train
from merging.resident import Resident

BRIEF = {"width": 16, "blocks": 1, "autoencoder_steps": 30, "denoiser_steps": 30, "batch": 8}


def test_one_seed_gives_one_generator_and_another_seed_another(nest, tmp_path):
    digests = [
        save(nest.train("base", **BRIEF, seed=seed), tmp_path / str(place)) for place, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("stop", [20, 50])
def test_a_training_that_was_stopped_goes_on_and_gives_the_same_generator(nest, tmp_path, stop):
    whole = save(nest.train("base", "a", **BRIEF), tmp_path / "whole")
    told = []

    def stopping(done, total, loss, seconds):
        told.append((done, total))
        if done == stop // 20 * 20:
            raise CancelledError("stopped")

    state = tmp_path / "state.safetensors"
    with pytest.raises(CancelledError):
        nest.train("base", "a", **BRIEF, checkpoint=state, save_every=7, progress=stopping)
    assert told[-1] == (stop // 20 * 20, 60)
    again = []
    resumed = nest.train("base", "a", **BRIEF, checkpoint=state, save_every=7, progress=lambda *all: again.append(all))
    assert [done for done, *_ in again] == [done for done in (40, 60) if done > stop // 20 * 20]
    assert save(resumed, tmp_path / "resumed") == whole


def test_a_state_of_another_training_is_passed_over(nest, tmp_path):
    state = tmp_path / "state.safetensors"
    nest.train("base", **BRIEF, checkpoint=state, save_every=10)
    plain = save(nest.train("a", **BRIEF), tmp_path / "plain")
    assert save(nest.train("a", **BRIEF, checkpoint=state), tmp_path / "beside") == plain


def test_progress_tells_steps_losses_and_seconds(nest):
    told = []
    nest.train("base", **BRIEF, progress=lambda *all: told.append(all))
    assert [(done, total) for done, total, *_ in told] == [(20, 60), (40, 60), (60, 60)]
    assert all(loss > 0.0 and seconds > 0.0 for _, _, loss, seconds in told)
    assert [seconds for *_, seconds in told] == sorted(seconds for *_, seconds in told)


def test_the_denoiser_learns_better_than_saying_nothing(nest):
    """v of unit noise and codes of unit size has mean square 1."""
    losses = []
    nest.train("base", "a", "b", progress=lambda *all: losses.append(all[2]))
    assert sum(losses[-3:]) / 3 < 0.8


def test_the_artifact_is_the_generator_and_its_digest_is_its_content(nest, of_parents, shelf):
    digest, folder = shelf(of_parents)
    again = load(folder, digest=digest)
    assert again.config == of_parents.config
    assert again.metrics == json.loads(json.dumps(of_parents.metrics))
    weight = nest.parents().tensor(nest.models["base"].weights_digest, "model.norm.weight").float()
    draw = Draw(generator=digest, selectors=("norms",), seed=5)
    one, other = (sampled(each, weight, "model.norm.weight", draw) for each in (of_parents, again))
    assert torch.equal(one, other)
    assert not torch.equal(one, weight)


def test_an_artifact_that_was_changed_is_not_opened(one_shot, tmp_path):
    folder = tmp_path / "generator"
    digest = save(one_shot, folder)
    (folder / "metrics.json").write_text("{}")
    assert digest_at(folder) != digest
    with pytest.raises(GeneratorError, match="must hash to"):
        load(folder, digest=digest)
    (folder / "vae" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(GeneratorError, match="cannot be read"):
        load(folder)
    (folder / "latents.safetensors").unlink()
    with pytest.raises(MissingGeneratorError, match="latents"):
        load(folder)


def test_an_artifact_is_never_written_over_another(one_shot, tmp_path):
    save(one_shot, tmp_path / "generator")
    with pytest.raises(ConflictError):
        save(one_shot, tmp_path / "generator")
    assert [path.name for path in tmp_path.iterdir()] == ["generator"]


def test_diffusers_reads_the_schedule(one_shot, shelf):
    from diffusers import DDIMScheduler

    _, folder = shelf(one_shot)
    config = DDIMScheduler.from_pretrained(folder / "scheduler").config
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.clip_sample) == ("v_prediction", True, False)


def test_metrics_say_how_it_rebuilds_and_whether_it_repeats(of_parents, one_shot):
    told = of_parents.metrics
    assert told["values_rel_l2"] < 0.03
    assert told["active_units"] == 1.0
    assert 0.0 < told["error_over_source_distance"] <= 0.3
    assert told["memorisation"]["replica"] is (told["memorisation"]["ratio"] < 0.1)
    alone = one_shot.metrics["memorisation"]
    assert alone["ratio"] is alone["replica"] is alone["median_source_distance"] is None
    assert alone["median_sample_distance"] > 0.0


def test_noise_is_a_quarter_of_what_sources_differ_by_where_that_is_less_than_what_was_asked_for(of_parents, one_shot):
    apart = of_parents.metrics["memorisation"]["median_source_distance"]
    assert of_parents.config.quiet == pytest.approx(0.25 * apart / 0.1)
    assert of_parents.config.sizes.posterior_std == pytest.approx(0.25 * apart)
    assert of_parents.metrics["posterior_std"] >= 0.25 * apart - 1e-6
    assert one_shot.config.quiet == 1.0
    assert one_shot.metrics["posterior_std"] >= 0.1 - 1e-6


@pytest.mark.parametrize("sources", [("base", "a"), ("base", "base")])
def test_noise_that_was_fixed_stays_and_so_does_that_of_equal_sources(nest, sources):
    fixed = sources == ("base", "a")
    generator = nest.train(*sources, **BRIEF, fixed_std=fixed)
    assert generator.config.quiet == 1.0
    if fixed:
        assert generator.metrics["posterior_std"] == pytest.approx(0.1)


def test_small_networks_are_trained_on_one_core_and_give_the_same_numbers_whatever_torch_is_set_to(nest, tmp_path):
    digests = []
    for place, threads in enumerate((1, 2)):
        torch.set_num_threads(threads)
        try:
            digests.append(save(nest.train("base", **BRIEF), tmp_path / str(place)))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
    assert digests[0] == digests[1]


def test_a_generator_is_refused_for_a_base_it_was_not_trained_for(nest, one_shot, shelf):
    digest, folder = shelf(one_shot)
    resident = Resident(nest.parents(generators={digest: folder}))
    draw = Draw(generator=digest, selectors=("norms",), rho=0.01)
    foreign = nest.recipe(draw, merge={"method": "passthrough", "sources": ["a"]})
    with pytest.raises(GeneratorMisfitError, match="trained on"):
        resident.build(foreign)
    beyond = nest.recipe(Draw(generator=digest, selectors=("ffn:0",), rho=0.01))
    with pytest.raises(GeneratorMisfitError, match="does not know it"):
        resident.build(beyond)
    with pytest.raises(GeneratorMisfitError, match="mean of several"):
        resident.build(nest.recipe(draw.evolve(arm="parent-average")))
    with pytest.raises(MissingGeneratorError):
        Resident(nest.parents()).build(nest.recipe(draw))


def test_what_cannot_be_learned_from_is_refused(nest):
    with pytest.raises(InvalidInputError, match="delta"):
        nest.train("base", **BRIEF, parameterisation="delta")
    with pytest.raises(InvalidInputError, match="1 to"):
        nest.train(**BRIEF)
    with pytest.raises(SelectorError, match="block:9"):
        nest.train("base", **BRIEF, selectors=("block:9",))


def test_residuals_to_the_mean_are_learned_and_come_back_with_it(nest):
    generator = nest.train("base", "a", "b", **BRIEF, parameterisation="delta")
    name = "model.norm.weight"
    weight = nest.parents().tensor(nest.models["base"].weights_digest, name)
    draw = Draw(generator="0" * 64, selectors=("norms",), arm="posterior", tau=0.0, mode="absolute")
    error = (sampled(generator, weight, name, draw) - weight).norm() / weight.norm()
    assert 0.0 < float(error) < 0.01


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_learned_from_and_are_named(nest, odd):
    header, (base, other) = nest.models["base"].header, nest.learned(nest.parents(), "base", "a")

    def tensor(name):
        found = other.tensor(name).clone()
        if name == "model.norm.weight":
            found[3] = odd
        return found

    broken = Source(other.digest, other.lineage, tensor)
    with pytest.raises(NonFiniteCheckpointError, match=f"1 values of tensor 'model.norm.weight' .*{other.digest}"):
        train(header, [base, broken], training(**BRIEF))


def test_a_training_whose_loss_is_no_number_any_more_is_stopped(nest, monkeypatch):
    monkeypatch.setattr(
        "merging.generation.training.loss_of", lambda network, *_: network.enter.weight.sum() * torch.nan
    )
    with pytest.raises(TrainingDivergedError, match="after 20 of 60 steps it is nan: lower `rate`"):
        nest.train("base", **BRIEF)


def test_a_single_source_has_the_label_that_samples_ask_for_and_several_have_their_own(nest):
    def labels(*names):
        sources = nest.learned(nest.parents(), *names)
        return dataset_of(nest.models["base"].header, sources, training(**BRIEF), torch.device("cpu")).labels.source

    assert labels("base").unique().tolist() == [0]
    assert labels("base", "a", "b").unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize(("names", "trained"), [(("base",), {0}), (("base", "a"), {0, 1, 2})])
def test_the_label_that_samples_ask_for_is_trained_without_any_drop_as_well(nest, monkeypatch, names, trained):
    seen = set()
    forward = Denoiser.forward

    def watched(network, codes, times, labels):
        seen.update(labels.source.tolist())
        assert bool(labels.told.all())
        return forward(network, codes, times, labels)

    monkeypatch.setattr(Denoiser, "forward", watched)
    monkeypatch.setattr("merging.generation.training.measure", lambda *_: {})
    nest.train(*names, **BRIEF, drop=0.0)
    assert seen == trained


def test_the_card_s_preset_compresses_wide_norms_and_keeps_those_of_narrow_models_whole():
    settings = training("explore-llama", width=8, blocks=1, autoencoder_steps=2, denoiser_steps=2, batch=2)
    for wide, chunk, latent in ((4096, 4096, 1024), (2048, 2048, 1024), (64, 64, 64)):
        header = Header(
            model_type="llama",
            config="{}",
            layers=1,
            vocab_size=8,
            tensors=(TensorInfo(name="model.norm.weight", dtype="F32", shape=(wide,)),),
        )
        values = torch.linspace(0.5, 1.5, wide)
        generator = train(header, [Source("base", ("base",), lambda name, values=values: values)], settings)
        assert (generator.config.chunk, generator.config.latent) == (chunk, latent)
        assert generator.config.sizes.lossless is (wide <= 1024)
        draw = Draw(generator="0" * 64, selectors=("norms",), mode="absolute", strength=1.0, eta=1.0)
        found = sampled(generator, values, "model.norm.weight", draw)
        assert found.shape == (wide,) and bool(found.isfinite().all()) and not torch.equal(found, values)
