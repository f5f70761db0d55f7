from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from core.adapters import Adapter, adapt, adapter_digest, read_adapter
from core.checkpoint import read_header, weights_digest
from core.errors import CheckpointError, NonFiniteCheckpointError, ParentsDoNotFitError
from core.model import Model
from core.recipe import identity, resolve
from merging.adapters import BLOCK, add_product, open_parents
from merging.compute import peak_bytes
from merging.plan import plan
from merging.resident import Resident
from tests.merging.test_compute import LiveBytes

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def registered(folder: Path) -> Adapter:
    header = read_adapter(folder)
    ref = f"local:{folder}"
    return Adapter(name=folder.name, ref=ref, weights_digest=adapter_digest(folder, header), header=header)


def model_of(folder: Path) -> Model:
    return Model(name="base", ref=f"local:{folder}", weights_digest=weights_digest(folder), header=read_header(folder))


def folder_of(ref: str) -> Path:
    return Path(ref.removeprefix("local:"))


def train(base: Path, folder: Path, **options) -> dict[str, torch.Tensor]:
    """An adapter as PEFT writes it, with random factors, and the weights that PEFT itself merges it to."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        wrapped = peft.get_peft_model(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            peft.LoraConfig(task_type="CAUSAL_LM", **options),
        )
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.data = 0.05 * torch.randn(parameter.shape)
    wrapped.save_pretrained(folder)
    return {name: tensor.clone() for name, tensor in wrapped.merge_and_unload().state_dict().items()}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """A GPT-2, which holds its matrices as (inputs, outputs); its attention's output matrix is square."""
    folder = tmp_path_factory.mktemp("gpt2")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=32)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def compare(base: Path, folder: Path, expected: dict[str, torch.Tensor]) -> set[str]:
    """Check every tensor of base and adapter against PEFT's; returns the names of those that the adapter changes."""
    plain = model_of(base)
    adapted = adapt(plain, registered(folder))
    parents = open_parents([adapted], folder_of)
    changed = set()
    for info in adapted.header.tensors:
        found = parents.tensor(adapted.weights_digest, info.name)
        assert found.shape == info.shape
        torch.testing.assert_close(found.float(), expected[info.name], rtol=1e-6, atol=1e-6)
        if not torch.equal(found, parents.tensor(plain.weights_digest, info.name)):
            changed.add(info.name)
            assert found.dtype == torch.float32
    return changed


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]},
        {"r": 3, "lora_alpha": 6, "target_modules": ALL, "use_rslora": True},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ALL,
            "rank_pattern": {"down_proj": 2, r"^model.layers.1.self_attn.q_proj": 5},
            "alpha_pattern": {r"layers.\d+.mlp.up_proj": 3, "q_proj": 1},
        },
        {"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "lm_head", "k_proj"]},
        {"r": 2, "lora_alpha": 4, "target_modules": ["k_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ],
    ids=["two modules", "rank-stabilised", "patterns", "embedding and head", "replaced tensors"],
)
def test_a_base_with_an_adapter_is_what_peft_merges(family, tmp_path, options):
    base = family.folder / "base"
    changed = compare(base, tmp_path, train(base, tmp_path, **options))
    wanted = {*options["target_modules"], *options.get("modules_to_save", ())}
    assert {name.split(".")[-2] for name in changed} == wanted


def test_matrices_that_a_family_holds_transposed_are_merged_transposed(gpt2, tmp_path):
    options = {"r": 2, "lora_alpha": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    changed = compare(gpt2, tmp_path, train(gpt2, tmp_path, **options))
    assert {name.split(".h.")[-1] for name in changed} == {
        f"{layer}.{part}.weight"
        for layer in (0, 1)
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


def test_a_bfloat16_base_is_not_rounded_before_the_candidate_is(half_family, tmp_path):
    base = half_family.folder / "base"
    train(base, tmp_path, r=2, lora_alpha=4, target_modules=["q_proj"])
    plain, adapter = model_of(base), registered(tmp_path)
    adapted = adapt(plain, adapter, name="mine")
    factors = load_file(tmp_path / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (factors[f"base_model.model.{name}.lora_{which}.weight"] for which in "AB")
    weight = load_file(base / "model.safetensors")[f"{name}.weight"]
    expected = weight.double() + 2.0 * (b.double() @ a.double())
    parents = open_parents([adapted], folder_of)
    torch.testing.assert_close(
        parents.tensor(adapted.weights_digest, f"{name}.weight"), expected.float(), rtol=0, atol=1e-9
    )
    built = Resident(parents).build(resolve(identity("mine", save_dtype="bfloat16"), {"mine": adapted}))
    assert torch.equal(built.tensors[f"{name}.weight"], expected.float().bfloat16())
    assert adapted.header.shapes == plain.header.shapes
    assert {t.dtype for t in adapted.header.tensors if "q_proj" in t.name} == {"F32"}
    assert {t.dtype for t in adapted.header.tensors if "q_proj" not in t.name} == {"BF16"}


def test_a_hand_worked_product():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    a, b = torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    # B A = [[1, -1], [1, 4], [3.5, -1]]
    expected = torch.tensor([[1.5, 1.5], [3.5, 6.0], [6.75, 5.5]])
    assert torch.equal(add_product(weight, a, b, 0.5), expected)
    assert torch.equal(add_product(weight.t(), a, b, 0.5, transposed=True), expected.t())


def test_the_product_is_the_exact_one_rounded_once_however_many_blocks_it_takes():
    generator = torch.Generator().manual_seed(2)
    rows = BLOCK // 300 + 7
    weight, a, b = (torch.randn(shape, generator=generator) for shape in ((rows, 300), (6, 300), (rows, 6)))
    exact = weight.double() + 0.3 * (b.double() @ a.double())
    assert (add_product(weight, a, b, 0.3) - exact).abs().max() < 1e-6
    assert torch.equal(add_product(weight, a, b, 0.3)[:5], add_product(weight[:5], a, b[:5], 0.3))


_SHARE = """
import sys, hashlib, torch
torch.set_num_threads(int(sys.argv[1]))
from merging.adapters import add_product
def numbers(rows, columns):  # torch.randn itself depends on the instruction set
    whole = torch.arange(rows * columns) * 2654435761 % 1000003
    return whole.double().div(500001.5).sub(1).float().view(rows, columns)
w, a, b = numbers(700, 900), numbers(9, 900), numbers(700, 9)
print(hashlib.sha256(add_product(w, a, b, 1.7).numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_threads_and_instruction_sets_change_no_byte():
    def run(threads: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _SHARE, threads], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parents[2], env={"PATH": "", **environment},
        )  # fmt: skip
        return done.stdout

    assert len({run("1"), run("2"), run("1", ATEN_CPU_CAPABILITY="default")}) == 1


def test_what_the_adapter_leaves_is_the_bases_own_memory(family, tmp_path):
    base = family.folder / "base"
    train(base, tmp_path, r=2, lora_alpha=4, target_modules=["q_proj"])
    adapted = adapt(model_of(base), registered(tmp_path))
    parents = open_parents([adapted, family.models["a"].evolve(ref=f"local:{family.folder}/a")], folder_of)
    name = "model.layers.0.mlp.up_proj.weight"
    kept = parents.tensor(adapted.weights_digest, name)
    assert kept is parents.tensor(adapted.base.weights_digest, name)
    again = "model.layers.0.self_attn.q_proj.weight"
    assert parents.tensor(adapted.weights_digest, again) is parents.tensor(adapted.weights_digest, again)


def test_the_digest_of_base_and_adapter_tells_every_content_apart(family, tmp_path):
    base = family.folder / "base"
    folders = [tmp_path / name for name in ("one", "scaled", "other")]
    train(base, folders[0], r=2, lora_alpha=4, target_modules=["q_proj"])
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)
    config = json.loads((folders[1] / "adapter_config.json").read_text())
    (folders[1] / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 5}))
    tensors = load_file(folders[2] / "adapter_model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, folders[2] / "adapter_model.safetensors")
    adapters = [registered(folder) for folder in folders]
    bases = [model_of(base), model_of(family.folder / "a")]
    digests = {adapt(one, adapter).weights_digest for one in bases for adapter in adapters}
    assert len(digests) == 6
    (folders[0] / "adapter_config.json").write_text(
        json.dumps({**config, "inference_mode": False, "lora_dropout": 0.3})
    )
    assert registered(folders[0]).weights_digest == adapters[0].weights_digest


def test_an_adapter_that_was_replaced_or_that_is_not_finite_is_refused(family, tmp_path):
    base = family.folder / "base"
    train(base, tmp_path, r=2, lora_alpha=4, target_modules=["q_proj"])
    adapted = adapt(model_of(base), registered(tmp_path))
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor.fill_(torch.inf) for name, tensor in tensors.items()}, file)
    broken = open_parents([adapted], folder_of)
    with pytest.raises(NonFiniteCheckpointError, match="q_proj"):
        broken.tensor(adapted.weights_digest, "model.layers.0.self_attn.q_proj.weight")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, file)
    with pytest.raises(CheckpointError, match="register it again"):
        open_parents([adapted], folder_of)


def test_the_wrong_base_is_refused_by_the_name_of_the_tensor(family, gpt2, half_family, tmp_path):
    train(family.folder / "base", tmp_path / "lora", r=2, lora_alpha=4, target_modules=["q_proj"])
    with pytest.raises(ParentsDoNotFitError, match=r"q_proj.*which its base has not"):
        adapt(model_of(gpt2), registered(tmp_path / "lora"))
    train(family.folder / "base", tmp_path / "embed", r=2, lora_alpha=4, target_modules=["embed_tokens"])
    with pytest.raises(ParentsDoNotFitError, match="one matrix as embedding and output"):
        adapt(half_family.models["base"], registered(tmp_path / "embed"))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"])
def test_the_memory_that_making_a_tensor_takes_stays_within_what_was_planned(family, tmp_path, name):
    options = {"r": 300, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    train(family.folder / "base", tmp_path, **options)
    base = model_of(family.folder / "base")
    adapted = adapt(base, registered(tmp_path))
    parents = open_parents([adapted], folder_of, keep_bytes=0)
    with LiveBytes() as counted:
        made = parents.tensor(adapted.weights_digest, name, keep=False)
    assert made.nbytes < counted.peak <= parents.making_bytes(adapted.weights_digest, name) + made.nbytes
    assert parents.making_bytes(base.weights_digest, name) == 0
    assert parents.making_bytes(adapted.weights_digest, "model.norm.weight") == 0


def test_an_export_counts_with_the_factors_of_an_adapter(family, tmp_path):
    name = "model.layers.0.self_attn.q_proj.weight"
    train(family.folder / "base", tmp_path, r=300, lora_alpha=4, target_modules=["q_proj"])
    adapted = adapt(model_of(family.folder / "base"), registered(tmp_path))
    parents = open_parents([adapted], folder_of, keep_bytes=0)
    recipe = resolve(identity("mine", save_dtype="float32"), {"mine": adapted})
    plans = plan(recipe, {adapted.weights_digest: adapted.header})
    peaks = {each.name: peak_bytes(each, parents) for each in plans}
    outputs, inputs = adapted.header.shapes[name]
    assert peaks[name] >= 8 * 300 * (outputs + inputs)
    assert peaks[name] - parents.making_bytes(adapted.weights_digest, name) == 8 * outputs * inputs
