"""One record, one sample: in every process, with any number of threads, whatever else is sampled."""

import os
import subprocess
import sys

import pytest
import torch

from core.draw_records import pack, unpack
from core.draws import Draw
from merging.resident import Resident, weights_digest

PROGRAM = """
import hashlib, sys
from pathlib import Path
import torch
from merging.generation.artifact import load
from merging.generation.sampling import sampled
from core.draw_records import unpack
from merging.sources import tensor_bytes
folder, threads, record, *names = sys.argv[1:]
torch.set_num_threads(int(threads))
generator = load(Path(folder))
draw, _ = unpack(bytes.fromhex(record))
total = hashlib.sha256()
for name in names:
    entry = generator.entries[name]
    weight = torch.linspace(-1.0, 2.0, steps=torch.Size(entry.shape).numel()).view(entry.shape)
    total.update(tensor_bytes(sampled(generator, weight, name, draw)))
print(total.hexdigest())
"""


@pytest.fixture(scope="module")
def in_process(of_parents, shelf):
    digest, folder = shelf(of_parents)
    names = sorted(of_parents.entries)

    def run(draw, *, threads, hash_seed):
        record = pack(draw.evolve(generator=digest), "0" * 64).hex()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), str(threads), record, *names],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.parametrize(
    "fields",
    [{"arm": "diffusion", "guidance": 2.0, "eta": 1.0, "coefficients": (0.7, -0.4)}, {"arm": "matched-noise"}],
    ids=["diffusion", "matched-noise"],
)
def test_fresh_processes_agree_whatever_their_hash_seed_and_threads(in_process, fields):
    draw = Draw(generator="0" * 64, selectors=("block:-1", "norms"), seed=2**62 + 11, **fields)
    one = in_process(draw, threads=1, hash_seed=1)
    assert one == in_process(draw, threads=2, hash_seed=77)
    assert one != in_process(draw.evolve(seed=5), threads=1, hash_seed=1)


def test_the_record_alone_gives_the_candidate_back(nest, one_shot, shelf):
    digest, folder = shelf(one_shot)
    recipe = nest.recipe(Draw(generator=digest, selectors=("norms",), rho=0.02, tau=1.3, seed=2**40))
    assert recipe.generation is not None
    record = pack(recipe.generation, nest.models["base"].weights_digest)
    assert len(record) <= 120
    draw, base = unpack(record)
    again = nest.recipe(draw)
    assert (again.digest(), base) == (recipe.digest(), nest.models["base"].weights_digest)
    residents = [Resident(nest.parents(generators={digest: folder})) for _ in range(2)]
    digests = [weights_digest(resident.build(each)) for resident, each in zip(residents, (recipe, again), strict=True)]
    assert digests[0] == digests[1]


def test_a_resident_goes_from_sample_to_sample_as_a_fresh_one_would(nest, of_parents, shelf):
    digest, folder = shelf(of_parents)
    draws = [
        Draw(generator=digest, selectors=selectors, rho=0.02, seed=seed)
        for selectors in (("norms",), ("block:-1",))
        for seed in range(3)
    ]
    resident = Resident(nest.parents(generators={digest: folder}))
    for draw in draws:
        fresh = Resident(nest.parents(generators={digest: folder}))
        assert weights_digest(resident.build(nest.recipe(draw))) == weights_digest(fresh.build(nest.recipe(draw)))


def test_a_layer_that_is_not_sampled_keeps_its_key_and_its_memory(nest, of_parents, shelf):
    digest, folder = shelf(of_parents)
    resident = Resident(nest.parents(generators={digest: folder}))
    plain = resident.build(nest.recipe())
    keys, places = plain.layer_keys, {name: tensor.data_ptr() for name, tensor in plain.tensors.items()}
    drawn = resident.build(nest.recipe(Draw(generator=digest, selectors=("block:-1",), rho=0.02)))
    assert drawn.layer_keys[:2] == keys[:2]
    assert drawn.layer_keys[2] != keys[2]
    moved = {name for name, tensor in drawn.tensors.items() if tensor.data_ptr() != places[name]}
    assert moved == {name for name in drawn.tensors if ".layers.2." in name}


def test_more_coefficients_move_along_fixed_samples(nest, of_parents):
    """With one coefficient of 1 the sample is the first; codes are decoded, so only that is exact."""
    from merging.generation.sampling import sampled

    name = "model.norm.weight"
    weight = nest.parents().tensor(nest.models["base"].weights_digest, name)
    draw = Draw(generator="0" * 64, selectors=("norms",), seed=3)

    def change(*coefficients):
        return sampled(of_parents, weight, name, draw.evolve(coefficients=coefficients)) - weight

    torch.testing.assert_close(change(1.0), change(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(change(1.0, 0.0, 0.0), change(1.0), rtol=0.0, atol=0.0)
    assert float((change(0.0, 1.0) - change(1.0)).norm()) > 0.1 * float(change(1.0).norm())
    assert float(change(0.5).norm()) < float(change(1.0).norm())


def test_noise_of_one_chunk_does_not_depend_on_the_chunks_beside_it():
    from merging.generation.noise import normals

    device = torch.device("cpu")
    whole = normals(7, "start 0", "w", 0, 4096, device)
    assert torch.equal(whole[1024:2048], normals(7, "start 0", "w", 1024, 2048, device))
    others = [normals(8, "start 0", "w", 0, 4096, device), normals(7, "start 1", "w", 0, 4096, device)]
    for other in [*others, normals(7, "start 0", "v", 0, 4096, device)]:
        assert abs(float(torch.corrcoef(torch.stack([whole, other]))[0, 1])) < 0.06
    assert float(whole.mean()) == pytest.approx(0.0, abs=0.06)
    assert float(whole.std()) == pytest.approx(1.0, abs=0.05)
    assert float((whole.abs() > 1.96).float().mean()) == pytest.approx(0.05, abs=0.015)
