import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.nursery.grow import MANIFEST, GrowthPlan, grow, is_complete
from examples.nursery.measure import broken_promises, measure

SMOKE = GrowthPlan.smoke()


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_member_of_the_family_opens_and_generates(smoke_family):
    for folder in (smoke_family.base, *smoke_family.specialists.values()):
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.dtype == torch.float32
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert not model.config.tie_word_embeddings
        prompt = tokenizer("Question: Which kid", return_tensors="pt")
        assert model.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]


def test_a_specialist_differs_from_the_base_in_every_tensor_and_in_no_shape(smoke_family):
    base = load_file(smoke_family.base / "model.safetensors")
    for folder in smoke_family.specialists.values():
        weights = load_file(folder / "model.safetensors")
        assert {name: tensor.shape for name, tensor in weights.items()} == {n: t.shape for n, t in base.items()}
        assert not any(torch.equal(weights[name], base[name]) for name in base)


def test_the_configuration_speaks_to_transformers_4_and_5(smoke_family):
    config = json.loads((smoke_family.base / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0


def test_a_complete_folder_is_returned_at_once(smoke_copy):
    grow(smoke_copy, plan=SMOKE)  # the copy's task files name the copy from here on
    before, told = stamps(smoke_copy), []
    family = grow(smoke_copy, plan=SMOKE, progress=lambda stage, done: told.append((stage, done)))
    assert told == [("complete", 1.0)]
    assert {path: stamp for path, stamp in stamps(smoke_copy).items() if not path.endswith(".lock")} == {
        path: stamp for path, stamp in before.items() if not path.endswith(".lock")
    }
    assert family.base == smoke_copy / "base"


def test_a_moved_family_has_task_files_that_name_its_new_place(smoke_copy, smoke_family):
    assert str(smoke_family.folder) in (smoke_copy / "tasks" / "nursery_arc.yaml").read_text()
    grow(smoke_copy, plan=SMOKE)
    text = (smoke_copy / "tasks" / "nursery_arc.yaml").read_text()
    assert str(smoke_copy / "tasks" / "nursery_arc" / "test.parquet") in text
    assert str(smoke_family.folder) not in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text('{"recipe": '),
        lambda folder: (folder / MANIFEST).write_text("[]"),
        lambda folder: (folder / "base" / "config.json").unlink(),
        lambda folder: os.truncate(folder / "arc" / "model.safetensors", 1000),
    ],
    ids=["no manifest", "half a manifest", "another manifest", "a missing file", "a truncated file"],
)
def test_an_incomplete_folder_does_not_count(smoke_copy, damage):
    assert is_complete(smoke_copy, 7, SMOKE)
    damage(smoke_copy)
    assert not is_complete(smoke_copy, 7, SMOKE)


def test_another_seed_or_plan_is_not_what_the_folder_holds(smoke_copy):
    assert not is_complete(smoke_copy, 8, SMOKE)
    assert not is_complete(smoke_copy, 7, GrowthPlan())


class PowerCutError(Exception):
    pass


def test_an_interrupted_growth_is_grown_again_and_foreign_files_stay(smoke_copy, smoke_family):
    (smoke_copy / "notes.txt").write_text("mine")
    os.truncate(smoke_copy / "wino" / "model.safetensors", 1000)

    def cut(stage: str, _done: float) -> None:
        if stage == "training hella":
            raise PowerCutError

    with pytest.raises(PowerCutError):
        grow(smoke_copy, plan=SMOKE, progress=cut)
    assert not is_complete(smoke_copy, 7, SMOKE)
    told: list[float] = []
    grow(smoke_copy, plan=SMOKE, progress=lambda _stage, done: told.append(done))
    assert is_complete(smoke_copy, 7, SMOKE)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert (smoke_copy / MANIFEST).read_text() == (smoke_family.folder / MANIFEST).read_text()
    assert (smoke_copy / "notes.txt").read_text() == "mine"
    assert not (smoke_copy / ".growing").exists()


def test_a_growth_in_a_fresh_process_with_another_hash_seed_gives_equal_bytes(smoke_family, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "examples.nursery", str(tmp_path / "again"), "--smoke"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
    )
    hashes = [
        json.loads((folder / MANIFEST).read_text())["files"] for folder in (tmp_path / "again", smoke_family.folder)
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 4 * 6 + 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8])
def test_a_full_growth_keeps_the_promises_of_the_design(tmp_path, seed):
    assert broken_promises(measure(grow(tmp_path, seed=seed))) == []
