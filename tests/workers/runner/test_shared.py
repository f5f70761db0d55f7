"""Published checkpoints of a real family, merged as the verb does it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.real.siblings import Course, grow
from workers.runner import merge

SHARED = Path(__file__).parents[4] / "shared"
MODELS, DATASETS = SHARED / "models", SHARED / "datasets"
STORED, FLOAT32, SHAPED = (MODELS / name for name in ("stories260K", "stories260K-fp32", "llama2xs-279K"))
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not all(each.is_dir() for each in (STORED, FLOAT32, SHAPED)), reason="no ../shared/models"),
]


def recipe(one: Path, other: Path, method: str = "linear", dtype: str = "float32") -> str:
    sources = [{"name": name, "model": str(folder)} for name, folder in (("a", one), ("b", other))]
    params = {"t": 0.25} if method == "slerp" else {}
    return json.dumps({"sources": sources, "merge": {"method": method, "params": params}, "save_dtype": dtype})


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the verb on a recipe: its last event, and the folder it wrote."""
    monkeypatch.chdir(tmp_path)

    def call(text: str, out: str = "out"):
        (tmp_path / "recipe.json").write_text(text)
        monkeypatch.setattr(sys, "argv", ["merge", "recipe.json", out])
        merge.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1]), tmp_path / out

    return call


@pytest.fixture(scope="module")
def siblings(tmp_path_factory):
    """Two siblings of the checkpoint as `examples.real` trains them, after a few steps."""
    found = grow(FLOAT32, DATASETS, tmp_path_factory.mktemp("siblings") / "grown", course=Course(steps=3, batch=4))
    return found / "arc", found / "wino"


def test_a_checkpoint_and_its_float32_form_merge_into_what_both_say(run):
    end, out = run(recipe(STORED, FLOAT32))
    ours, wide, stored = (load_file(folder / "model.safetensors") for folder in (out, FLOAT32, STORED))
    assert ours.keys() <= wide.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, 0.5 * stored[name].float() + 0.5 * wide[name].float()), name
    again, _ = run(recipe(STORED, FLOAT32), "again")
    assert (again["weights_digest"], again["recipe_digest"]) == (end["weights_digest"], end["recipe_digest"])


@pytest.mark.skipif(
    not all((DATASETS / name).is_dir() for name in ("arc_challenge", "arc_easy", "winogrande")),
    reason="no ../shared/datasets, which siblings are trained on",
)
@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_siblings_merge_twice_into_equal_bytes_that_transformers_opens(run, siblings, method):
    (end, out), (again, twin) = (run(recipe(*siblings, method), name) for name in ("one", "two"))
    assert again["weights_digest"] == end["weights_digest"]
    assert (out / "model.safetensors").read_bytes() == (twin / "model.safetensors").read_bytes()
    a, b = (load_file(folder / "model.safetensors") for folder in siblings)
    assert all(not torch.equal(a[name], b[name]) for name in a), "the siblings were not trained"
    weight = 0.5 if method == "linear" else 0.25
    for name, tensor in load_file(out / "model.safetensors").items():
        # Parents this near lie on a chord that is as good as their arc.
        torch.testing.assert_close(tensor, torch.lerp(a[name], b[name], weight), rtol=1e-4, atol=1e-4)
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        logits = model(**tokenizer("Once upon a time", return_tensors="pt")).logits
    assert logits.isfinite().all()


def test_a_model_of_other_shapes_is_refused_with_the_tensor(run):
    end, out = run(recipe(FLOAT32, SHAPED))
    assert end["event"] == "error" and end["code"] == "parents_do_not_fit", end
    assert "down_proj" in json.dumps(end) and not out.exists()
