"""What a generator has to show on a model whose norms mean something; the numbers are those of one tiny model."""

import statistics

import pytest
import torch

from core.draws import Draw
from merging.export import export
from merging.resident import Resident, weights_digest

NORMS = ("norms",)


@pytest.fixture(scope="module")
def resident(nest, one_shot, of_parents, shelf):
    return Resident(nest.parents(generators=dict([shelf(one_shot), shelf(of_parents)])))


@pytest.fixture(scope="module")
def base_perplexity(nest, resident, take_perplexity):
    return take_perplexity(resident.build(nest.recipe()).model, nest.held)


def norms_of(built):
    return {name: tensor for name, tensor in built.tensors.items() if name.endswith("norm.weight")}


def distance(one, other):
    total = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return total**0.5


def size(tensors):
    return sum(float(tensor.double().square().sum()) for tensor in tensors.values()) ** 0.5


def copied(built):
    return {name: tensor.clone() for name, tensor in norms_of(built).items()}


def test_permuted_norms_cost_perplexity_so_that_this_model_can_tell_good_samples_from_bad(
    nest, resident, base_perplexity, take_perplexity
):
    model = resident.build(nest.recipe(), apart=True).model
    kept = {name: p.data.clone() for name, p in model.named_parameters() if name.endswith("norm.weight")}
    draws = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name in kept:
            order = torch.empty(parameter.numel()).uniform_(generator=draws).argsort()
            parameter.data = kept[name][order]
    assert take_perplexity(model, nest.held) / base_perplexity >= 1.3
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name]


def test_no_strength_no_blend_no_radius_and_no_amount_are_the_base_with_its_digest(nest, one_shot, shelf):
    digest, _ = shelf(one_shot)
    plain = nest.recipe().digest()
    for still in ({"strength": 0.0}, {"blend": 0.0}, {"rho": 0.0}, {"amounts": (0.0, 0.0)}, {"coefficients": (0.0,)}):
        assert nest.recipe(Draw(generator=digest, selectors=NORMS, **still)).digest() == plain


def test_rebuilt_norms_are_close_and_the_model_hardly_notices(
    nest, one_shot, shelf, resident, base_perplexity, take_perplexity
):
    assert one_shot.metrics["values_rel_l2"] <= 0.03
    digest, _ = shelf(one_shot)
    rebuilt = nest.recipe(Draw(generator=digest, selectors=NORMS, arm="posterior", tau=0.0, mode="absolute"))
    built = resident.build(rebuilt)
    base = {name: nest.parents().tensor(nest.models["base"].weights_digest, name) for name in norms_of(built)}
    assert 0.0 < distance(norms_of(built), base) / size(base) <= 0.03
    assert take_perplexity(built.model, nest.held) / base_perplexity <= 1.01


def test_sixteen_seeds_are_sixteen_different_samples_that_all_work(
    nest, one_shot, shelf, resident, base_perplexity, take_perplexity
):
    digest, _ = shelf(one_shot)
    base = copied(resident.build(nest.recipe(save_dtype="bfloat16")))
    samples, ratios, digests = [], [], set()
    for seed in range(16):
        draw = Draw(generator=digest, selectors=NORMS, seed=seed, rho=0.02)
        built = resident.build(nest.recipe(draw, save_dtype="bfloat16"))
        samples.append(copied(built))
        digests.add(weights_digest(built))
        ratios.append(take_perplexity(built.model, nest.held) / base_perplexity)
    assert len(digests) == 16
    assert statistics.mean(ratios) <= 1.02
    assert max(ratios) <= 1.10
    changed = [sum(int((s[n] != base[n]).sum()) for n in s) / sum(t.numel() for t in s.values()) for s in samples]
    assert min(changed) >= 0.5
    away = statistics.mean(distance(sample, base) for sample in samples)
    apart = statistics.mean(distance(samples[k], samples[k + 1]) for k in range(15))
    assert apart / away >= 0.7


@pytest.mark.parametrize("arm", ["diffusion", "posterior", "matched-noise", "parent-average"])
@pytest.mark.parametrize("rho", [0.01, 0.1])
def test_every_arm_goes_as_far_as_the_radius_says_in_every_tensor(nest, of_parents, shelf, resident, arm, rho):
    digest, _ = shelf(of_parents)
    selectors = ("norms", "block:-1")
    base = {name: tensor.clone() for name, tensor in resident.build(nest.recipe()).tensors.items()}
    built = resident.build(nest.recipe(Draw(generator=digest, selectors=selectors, arm=arm, rho=rho, seed=3)))
    for entry in of_parents.config.tensors:
        change = (built.tensors[entry.name].double() - base[entry.name].double()).norm()
        assert float(change / base[entry.name].double().norm()) == pytest.approx(rho, rel=0.02), entry.name
    known = {entry.name for entry in of_parents.config.tensors}
    assert all(torch.equal(tensor, base[name]) for name, tensor in built.tensors.items() if name not in known)


def test_perplexity_grows_with_the_radius(nest, one_shot, shelf, resident, take_perplexity):
    digest, _ = shelf(one_shot)
    found = []
    for rho in (0.01, 0.05, 0.15, 0.3, 0.5):
        drawn = [nest.recipe(Draw(generator=digest, selectors=NORMS, rho=rho, seed=seed)) for seed in range(3)]
        found.append(statistics.mean(take_perplexity(resident.build(recipe).model, nest.held) for recipe in drawn))
    assert sorted(found) == found


def test_matched_noise_without_a_radius_is_as_large_as_the_sample_it_is_matched_with(nest, one_shot, shelf, resident):
    digest, _ = shelf(one_shot)
    base = copied(resident.build(nest.recipe()))

    def changes(arm):
        built = copied(resident.build(nest.recipe(Draw(generator=digest, selectors=NORMS, arm=arm, seed=9))))
        return {name: float((built[name] - base[name]).norm()) for name in base}

    assert changes("matched-noise") == pytest.approx(changes("diffusion"), rel=1e-3)


def test_a_sample_is_taken_back_exactly_and_exported_byte_for_byte(nest, one_shot, shelf, resident, tmp_path):
    digest, folder = shelf(one_shot)
    drawn = nest.recipe(Draw(generator=digest, selectors=NORMS, rho=0.05, seed=1), save_dtype="bfloat16")
    plain = nest.recipe(save_dtype="bfloat16")
    before = weights_digest(resident.build(plain))
    scored = weights_digest(resident.build(drawn))
    assert weights_digest(resident.build(plain)) == before != scored
    parents = nest.parents(generators={digest: folder})
    info = export(drawn, parents, tmp_path / "out", tokenizer_folder=nest.folder / "base")
    assert info.weights_digest == scored


def test_switching_a_layer_off_leaves_every_other_layer_as_it_was(nest, one_shot, shelf, resident):
    digest, _ = shelf(one_shot)
    base = copied(resident.build(nest.recipe()))

    def built(amounts):
        draw = Draw(generator=digest, selectors=NORMS, rho=0.05, seed=2, amounts=amounts)
        return copied(resident.build(nest.recipe(draw)))

    whole, without = built(()), built((1.0, 0.0, 1.0))
    for name in whole:
        if ".layers.1." in name:
            assert torch.equal(without[name], base[name])
            assert not torch.equal(whole[name], base[name])
        else:
            assert torch.equal(without[name], whole[name])


def test_a_sample_around_a_merge_is_a_sample_around_its_weights(nest, of_parents, shelf, resident):
    digest, _ = shelf(of_parents)
    merge = {"method": "linear", "sources": ["base", "a", "b"], "params": {"weight": 1.0}}
    plain = copied(resident.build(nest.recipe(merge=merge)))
    draw = Draw(generator=digest, selectors=NORMS, rho=0.03, seed=4)
    built = copied(resident.build(nest.recipe(draw, merge=merge)))
    for name in plain:
        assert float((built[name] - plain[name]).norm() / plain[name].norm()) == pytest.approx(0.03, rel=0.01)


def test_a_whole_block_is_rebuilt_and_chunks_that_were_never_seen_are_reported(
    nest, shelf, base_perplexity, take_perplexity
):
    block = nest.train("base", selectors=("block:-1",), parameterisation="full", chunk=64, freeze=0.0)
    told = block.metrics
    assert told["chunks_rel_l2"] <= 0.05
    assert told["held_out_chunks"] > 0
    # Next to nothing is compressed, so that unseen chunks come through as well.
    assert told["chunks_rel_l2"] < told["held_out_chunks_rel_l2"] < 0.2
    digest, folder = shelf(block)
    resident = Resident(nest.parents(generators={digest: folder}))
    draw = Draw(generator=digest, selectors=("block:-1",), arm="posterior", tau=0.0, mode="absolute")
    built = resident.build(nest.recipe(draw))
    assert take_perplexity(built.model, nest.held) / base_perplexity <= 1.02
