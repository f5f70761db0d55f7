import torch

from core.draws import Draw
from core.generators import training
from merging.generation.sources import candidate_source, model_source, snapshot_source
from merging.generation.training import train
from merging.generation.validity import Limits, check_sample
from merging.resident import Resident

BRIEF = {"width": 16, "blocks": 1, "autoencoder_steps": 30, "denoiser_steps": 30, "batch": 8}
NORM = "model.norm.weight"


def test_a_generator_learns_from_candidates_with_scores_and_fits_what_they_are_made_of(nest):
    parents = nest.parents()
    merges = [
        nest.recipe(merge={"method": "linear", "sources": ["base", "a"], "params": {"weight": {"base": w, "a": 1 - w}}})
        for w in (0.2, 0.5, 0.8)
    ]
    base = nest.models["base"].weights_digest
    sources = [
        model_source(parents, base),
        *(candidate_source(recipe, parents, score) for recipe, score in zip(merges, (0.3, 0.5, 0.4), strict=True)),
    ]
    torch.testing.assert_close(
        sources[2].tensor(NORM), 0.5 * (sources[0].tensor(NORM) + parents.tensor(nest.models["a"].weights_digest, NORM))
    )
    generator = train(nest.models["base"].header, sources, training(**BRIEF))
    assert generator.config.scored
    assert generator.config.lineage == (base, nest.models["a"].weights_digest)
    assert generator.config.sources == (base, *(recipe.digest() for recipe in merges))


def test_a_snapshot_is_its_tensors_over_its_base(nest):
    parents = nest.parents()
    base = model_source(parents, nest.models["base"].weights_digest)
    tuned = {NORM: base.tensor(NORM) * 2.0}
    snapshot = snapshot_source(tuned, base)
    assert torch.equal(snapshot.tensor(NORM), tuned[NORM])
    assert torch.equal(
        snapshot.tensor("model.layers.0.mlp.up_proj.weight"), base.tensor("model.layers.0.mlp.up_proj.weight")
    )
    assert snapshot.lineage == base.lineage
    others = [snapshot_source({NORM: tuned[NORM] + 1}, base), snapshot_source(tuned, snapshot)]
    assert len({snapshot.digest, *(other.digest for other in others)}) == 3


def test_the_gate_looks_at_a_built_candidate_beside_its_base(nest, one_shot, shelf):
    digest, folder = shelf(one_shot)
    parents = nest.parents(generators={digest: folder})
    resident = Resident(parents)
    recipe = nest.recipe(Draw(generator=digest, selectors=("norms",), rho=0.03, seed=2), save_dtype="bfloat16")
    found = check_sample(recipe, resident.build(recipe).tensors, parents, Limits(peak=2.0))
    assert found is not None
    assert 0.025 < found.distance < 0.035
    assert found.changed > 0.5
    plain = nest.recipe(save_dtype="bfloat16")
    assert check_sample(plain, resident.build(plain).tensors, parents) is None
