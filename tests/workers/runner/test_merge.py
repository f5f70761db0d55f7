import errno
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from core.checkpoint import weights_digest
from workers.runner import manifest, merge

RECIPE = """
sources:
  - {name: a, model: "local:nursery/arc"}
  - {name: b, model: "local:nursery/wino"}
merge:
  method: linear
  params: {weight: {a: 0.25, b: 0.75}}
save_dtype: %s
"""


@pytest.fixture
def here(smoke_nursery, tmp_path, monkeypatch):
    """A working folder with the models below a root."""
    monkeypatch.setenv("HUARIZO_MODEL_ROOTS", str(smoke_nursery))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, monkeypatch, capsys):
    """Run the verb on a recipe's text: exit status and the events it told."""

    def call(text, *options, out="out"):
        (here / "recipe.yaml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["merge", "recipe.yaml", out, *options])
        status = merge.main()
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def average(root, dtype):
    a, b = (load_file(root / "nursery" / name / "model.safetensors") for name in ("arc", "wino"))
    return {name: (0.25 * a[name].float() + 0.75 * b[name].float()).to(dtype) for name in a}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_recipe_becomes_the_average_that_one_computes_by_hand(run, here, smoke_nursery, dtype):
    status, events = run(RECIPE % dtype)
    assert status == 0
    expected = average(smoke_nursery, getattr(torch, dtype))
    made = load_file(here / "out" / "model.safetensors")
    assert set(made) == set(expected)
    for name, tensor in expected.items():
        assert made[name].dtype == tensor.dtype and torch.equal(made[name], tensor), name
    (done,) = events
    assert done["event"] == "done" and done["weights_digest"] == weights_digest(here / "out")
    manifest = json.loads((here / "out" / "huarizo.json").read_text())
    assert manifest["files"] == done["files"] and manifest["recipe_digest"] == done["recipe_digest"]
    assert manifest["parents"] == {
        f"local:nursery/{name}": weights_digest(smoke_nursery / "nursery" / name) for name in ("arc", "wino")
    }


def test_progress_is_told_tensor_by_tensor(run, here):
    status, events = run(RECIPE % "float32", "--json-progress")
    *steps, done = events
    total = len(load_file(here / "out" / "model.safetensors"))
    assert status == 0 and done["event"] == "done"
    reading = [step["doing"] for step in steps if "doing" in step]
    assert reading == ["reading local:nursery/arc", "reading local:nursery/wino"]
    assert steps[2:] == [{"event": "progress", "done": n, "total": total} for n in range(1, total + 1)]


def test_models_are_found_from_the_working_folder_and_by_absolute_path(run, here, smoke_nursery, monkeypatch):
    monkeypatch.delenv("HUARIZO_MODEL_ROOTS")
    shutil.copytree(smoke_nursery / "nursery" / "arc", here / "mine")
    text = RECIPE.replace("nursery/arc", "mine").replace("nursery/wino", f"{smoke_nursery}/nursery/wino")
    status, _ = run(text % "float32")
    assert status == 0
    manifest = json.loads((here / "out" / "huarizo.json").read_text())
    assert set(manifest["parents"]) == {"local:mine", f"local:{smoke_nursery}/nursery/wino"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sources: [", "invalid_recipe"),
        ("42", "invalid_recipe"),
        ("sources: []\nmerge: {method: linear}", "invalid_recipe"),
        (RECIPE.replace("linear", "linaer") % "float32", "unknown_method"),
        (RECIPE.replace("nursery/arc", "nursery/nobody") % "float32", "missing_checkpoint"),
        (RECIPE.replace("weight:", "wait:") % "float32", "invalid_recipe"),
        (RECIPE.replace("a: 0.25, b: 0.75", "a: 1.0, b: -1.0") % "float32", "invalid_recipe"),
    ],
)
def test_an_error_is_one_line_with_its_code(run, here, text, code):
    status, events = run(text, "--json-progress")
    assert status == 1
    (event,) = events
    assert (event["event"], event["code"]) == ("error", code), event
    assert event["message"] and not (here / "out").exists()


def test_a_recipe_that_is_no_text_is_refused(run, here, monkeypatch, capsys):
    (here / "binary").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("binary", "nowhere.yaml"):
        monkeypatch.setattr(sys, "argv", ["merge", name, "out"])
        assert merge.main() == 1
        assert json.loads(capsys.readouterr().out)["code"] == "invalid_recipe"


def test_what_nobody_foresaw_is_told_too(run, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(merge, "export", fail)
    status, (event,) = run(RECIPE % "float32")
    assert (status, event["code"], event["message"]) == (1, "internal", "ZeroDivisionError: division by zero")


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(run, here):
    (here / "out").mkdir()
    assert run(RECIPE % "float32")[0] == 0
    before = sorted(path.name for path in (here / "out").iterdir())
    status, (event,) = run(RECIPE % "bfloat16")
    assert (status, event["code"]) == (1, "conflict")
    assert sorted(path.name for path in (here / "out").iterdir()) == before


def test_files_are_hashed_as_they_are_written_and_not_again(run, monkeypatch):
    read = []
    monkeypatch.setattr(manifest, "sha256_of", lambda path: read.append(path.name))
    assert run(RECIPE % "float32")[0] == 0
    assert read == []


def test_a_disk_that_is_full_at_the_manifest_is_told_and_leaves_nothing(run, here, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "the disk")

    monkeypatch.setattr(manifest, "sync_file", full)
    status, (event,) = run(RECIPE % "float32")
    assert (status, event["code"]) == (1, "disk_full")
    assert [path.name for path in here.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("out", ["file/out", "file/deeper/out"])
def test_a_target_below_a_file_is_told_in_one_line(run, here, out):
    (here / "file").touch()
    status, (event,) = run(RECIPE % "float32", out=out)
    assert (status, event["code"]) == (1, "invalid_input")
    assert "cannot be made" in event["message"] and "choose another place" in event["message"]


def test_the_working_folder_itself_is_no_target(here, monkeypatch, capsys):
    (here / "work").mkdir()
    text = here / "recipe.yaml"
    text.write_text(RECIPE % "float32")
    monkeypatch.chdir(here / "work")
    monkeypatch.setattr(sys, "argv", ["merge", str(text), "."])
    assert merge.main() == 1
    assert json.loads(capsys.readouterr().out)["code"] == "invalid_input"
    assert (here / "work").is_dir()


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_told_in_one_line(run, here, seed):
    status, (event,) = run(RECIPE % "float32", "--seed", str(seed))
    assert (status, event["code"]) == (1, "invalid_input")
    assert "seed must be at least 0" in event["message"] and not (here / "out").exists()


def test_it_runs_as_a_process_of_its_own(here, smoke_nursery):
    text = RECIPE.replace("local:nursery/arc", f"local:{smoke_nursery}/nursery/arc") % "float32"
    (here / "recipe.yaml").write_text(text)
    command = [sys.executable, "-m", "workers.runner.merge", str(here / "recipe.yaml"), str(here / "out")]
    done = subprocess.run(command, cwd=merge.__file__.rsplit("/workers/", 1)[0], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights_digest"] == weights_digest(here / "out")


@pytest.mark.parametrize("value", [".nan", ".inf", "[0.5, .nan]"])
def test_a_weight_that_is_no_number_is_named_in_one_line(run, value):
    status, (event,) = run((RECIPE % "float32").replace("b: 0.75", f"b: {value}"))
    assert (status, event["event"], event["code"]) == (1, "error", "invalid_recipe")
    assert "weight[b] must be a finite number" in event["message"] and "\n" not in event["message"]


def test_a_users_own_models_may_link_wherever_the_user_can_read(run, here, smoke_nursery):
    (here / "own").mkdir()
    for file in (smoke_nursery / "nursery" / "arc").iterdir():
        (here / "own" / file.name).symlink_to(file)
    assert run((RECIPE % "float32").replace("local:nursery/arc", "local:own"), out="linked")[0] == 0
    assert run(RECIPE % "float32", out="plain")[0] == 0
    assert weights_digest(here / "linked") == weights_digest(here / "plain")
    assert not any(file.is_symlink() for file in (here / "linked").iterdir())


def test_an_adapter_is_merged_with_its_base_by_reference(run, here, smoke_nursery):
    name = "model.layers.0.self_attn.q_proj"
    plain = load_file(smoke_nursery / "nursery" / "arc" / "model.safetensors")
    width = plain[f"{name}.weight"].shape
    factors = {"A": torch.full((1, width[1]), 0.5), "B": torch.full((width[0], 1), 0.25)}
    (here / "lora").mkdir()
    save_file(
        {f"base_model.model.{name}.lora_{which}.weight": factor for which, factor in factors.items()},
        here / "lora" / "adapter_model.safetensors",
    )
    (here / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 2}')
    text = (RECIPE % "float32").replace(
        '{name: b, model: "local:nursery/wino"}', '{name: b, model: "local:nursery/arc", adapter: "local:lora"}'
    )
    status, (done,) = run(text)
    assert status == 0, done
    made = load_file(here / "out" / "model.safetensors")
    for tensor, weight in plain.items():
        # A quarter of the base and three quarters of the base plus 2 * 0.5 * 0.25.
        expected = weight + 0.75 * 0.25 if tensor == f"{name}.weight" else weight
        torch.testing.assert_close(made[tensor], expected, rtol=1e-6, atol=1e-7)
    manifest = json.loads((here / "out" / "huarizo.json").read_text())
    assert set(manifest["parents"]) == {"local:nursery/arc", "local:lora"}


@pytest.fixture
def grown(here, smoke_nursery):
    """A model that has one token more than the nursery's others."""
    shutil.copytree(smoke_nursery / "nursery" / "wino", here / "grown")
    tensors = load_file(here / "grown" / "model.safetensors")
    rows = len(tensors["model.embed_tokens.weight"])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            tensors[name] = torch.cat([tensors[name], torch.full((1, tensors[name].shape[1]), 0.125)])
    save_file(tensors, here / "grown" / "model.safetensors", metadata={"format": "pt"})
    for file, change in {
        "config.json": lambda c: {**c, "vocab_size": rows + 1},
        "tokenizer.json": lambda t: {
            **t,
            "added_tokens": [*t["added_tokens"], {"id": rows, "content": "<|new|>", **FLAGS}],
        },
    }.items():
        content = json.loads((here / "grown" / file).read_text())
        (here / "grown" / file).write_text(json.dumps(change(content)))
    return rows


FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
UNION = (RECIPE % "float32").replace("local:nursery/wino", "local:grown") + "tokenizer: {mode: union}\n"


def test_models_of_other_vocabularies_become_one_that_has_the_tokens_of_both(run, here, grown):
    status, (done,) = run(UNION)
    assert status == 0, done
    made = load_file(here / "out" / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(made[grown], torch.full((made.shape[1],), 0.125)) and len(made) == grown + 1
    tokenizer = AutoTokenizer.from_pretrained(here / "out")
    assert tokenizer.convert_tokens_to_ids("<|new|>") == grown and len(tokenizer) == grown + 1
    donor = AutoTokenizer.from_pretrained(here / "grown")
    text = "<|new|>the answer"
    assert tokenizer(text)["input_ids"] == donor(text)["input_ids"]


def test_a_look_ahead_counts_the_rows_of_a_union(run, here, grown):
    status, (done,) = run(UNION, "--dry-run")
    assert status == 0, done
    plain = run(RECIPE % "float32", "--dry-run")[1][0]
    tensors = load_file(here / "grown" / "model.safetensors")
    rows = sum(
        tensor.shape[1] for name, tensor in tensors.items() if name in ("model.embed_tokens.weight", "lm_head.weight")
    )
    assert done["parameters"] == plain["parameters"] + rows


def test_other_vocabularies_are_refused_with_their_sizes_the_first_other_token_and_the_way_out(run, grown):
    status, (error,) = run(UNION.replace("tokenizer: {mode: union}", ""))
    assert (status, error["code"]) == (1, "parents_do_not_fit")
    assert f"{grown} and {grown + 1} tokens, and id {grown} is no token and '<|new|>'" in error["message"]
    assert "mode: union" in error["message"]


MERGEKIT = """
models:
  - {model: nursery/arc, parameters: {weight: 0.25}}
  - {model: nursery/wino, parameters: {weight: 0.75}}
merge_method: linear
parameters: {int8_mask: true}
out_dtype: float32
"""


def test_a_mergekit_configuration_gives_the_same_bytes_as_the_recipe_that_says_it(run, here):
    assert run(RECIPE % "float32", out="ours")[0] == 0
    status, (done,) = run(MERGEKIT, out="theirs")
    assert status == 0
    assert weights_digest(here / "theirs") == weights_digest(here / "ours") == done["weights_digest"]
    assert "parameters.int8_mask has no effect on linear in mergekit, nor here." in done["notes"]
    manifest = json.loads((here / "theirs" / "huarizo.json").read_text())
    assert manifest["notes"] == done["notes"]
    assert set(manifest["parents"]) == {"local:nursery/arc", "local:nursery/wino"}


def test_mergekit_keeps_the_models_dtype_where_none_is_given(run, here):
    assert run(MERGEKIT.replace("out_dtype: float32\n", ""))[0] == 0
    kept = load_file(here / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


def test_options_take_the_place_of_what_the_file_says(run, here):
    dare = RECIPE.replace("method: linear", "method: dare_linear\n  base: a").replace(
        "{weight: {a: 0.25, b: 0.75}}", "{density: 0.5}"
    )
    digests = [
        run(dare % "float32", *options, out=f"out{n}")[1][0]["weights_digest"]
        for n, options in enumerate([(), ("--seed", "0"), ("--seed", "1")])
    ]
    assert digests[0] == digests[1] != digests[2]
    assert run(RECIPE % "float32", "--save-dtype", "float16", "--shard-size", "20000", out="half")[0] == 0
    files = list((here / "half").glob("*.safetensors"))
    assert len(files) > 2 and {t.dtype for file in files for t in load_file(file).values()} == {torch.float16}


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(run, here):
    status, (done,) = run(RECIPE % "bfloat16", "--dry-run")
    assert status == 0 and not (here / "out").exists()
    assert run(RECIPE % "bfloat16")[0] == 0
    made = load_file(here / "out" / "model.safetensors")
    assert done["tensors"] == len(made) and done["methods"] == {"linear": len(made)}
    assert done["parameters"] == sum(tensor.numel() for tensor in made.values())
    assert done["bytes"] == sum(tensor.nbytes for tensor in made.values())
    assert (done["save_dtype"], done["shards"]) == ("bfloat16", 1)
    # The largest tensor, its two float32 parents and itself at the least.
    largest = max(tensor.numel() for tensor in made.values())
    assert made[done["peak_tensor"]].numel() == largest and done["peak_memory"] >= largest * (2 * 4 + 2)
    status, (event,) = run(RECIPE % "bfloat16", "--max-memory", str(done["peak_memory"] - 1), out="tight")
    assert (status, event["code"]) == (1, "out_of_memory")
    assert run(RECIPE % "bfloat16", "--max-memory", str(done["peak_memory"]), out="enough")[0] == 0


def test_a_recipe_is_told_in_mergekits_words_without_being_merged(run, here):
    status, (done,) = run(RECIPE % "bfloat16", "--to-mergekit")
    assert status == 0 and not (here / "out").exists()
    (document,) = done["documents"]
    assert [model["model"] for model in document["models"]] == ["nursery/arc", "nursery/wino"]
    status, (event,) = run(RECIPE.replace("{weight:", "{scale: 2.0, weight:") % "float32", "--to-mergekit")
    assert (status, event["code"]) == (1, "mergekit_unsupported")


def test_models_lie_where_the_recipe_says_from_the_working_folder_or_from_its_own(
    run, here, smoke_nursery, monkeypatch
):
    monkeypatch.delenv("HUARIZO_MODEL_ROOTS")
    (here / "work").mkdir()
    (here / "models").symlink_to(smoke_nursery / "nursery")
    (here / "recipe.yaml").write_text((RECIPE % "float32").replace("local:nursery", "models"))
    monkeypatch.chdir(here / "work")
    monkeypatch.setattr(sys, "argv", ["merge", str(here / "recipe.yaml"), "out"])
    assert merge.main() == 0
    monkeypatch.setattr(sys, "argv", ["merge", str(here / "recipe.yaml"), "out2", "--format", "mergekit"])
    assert merge.main() == 1


MEASURED = """
sources:
  - {name: base, model: "local:nursery/base"}
  - {name: a, model: "local:nursery/arc"}
merge:
  method: darex_q
  base: base
  params: {density: 0.3, q_rule: analytic_rows}
%s
"""


def test_activation_statistics_are_read_and_named_in_the_recipe(run, here, smoke_nursery):
    tensors = load_file(smoke_nursery / "nursery" / "base" / "model.safetensors")
    vectors = {name: torch.full(t.shape[-1:], 20.0) for name, t in tensors.items() if name.endswith("proj.weight")}
    save_file(vectors, here / "statistics.safetensors")
    status, (plain,) = run(MEASURED % "", out="plain")
    assert status == 0
    status, (done,) = run(MEASURED % "", "--statistics", "statistics.safetensors")
    assert status == 0
    assert done["weights_digest"] != plain["weights_digest"]
    named = json.loads((here / "out" / "huarizo.json").read_text())["recipe"]["statistics"]
    status, (again,) = run(MEASURED % f"statistics: {named}", "--statistics", "statistics.safetensors", out="again")
    assert status == 0
    assert again["weights_digest"] == done["weights_digest"]


def test_a_recipe_that_names_other_statistics_than_those_at_hand_is_refused(run, here):
    save_file({"x": torch.ones(2)}, here / "statistics.safetensors")
    status, (event,) = run(MEASURED % f"statistics: {'a' * 64}", "--statistics", "statistics.safetensors")
    assert status == 1
    assert event["code"] == "invalid_recipe"
    assert "those at hand" in event["message"]


def test_a_recipe_that_names_statistics_without_their_file_asks_for_it(run, here):
    status, (event,) = run(MEASURED % f"statistics: {'a' * 64}")
    assert status == 1
    assert event["code"] == "missing_checkpoint"
    assert not (here / "out").exists()


NESTED = """
sources:
  - {name: base, model: "local:nursery/base"}
  - name: thinned
    recipe:
      sources: [{name: base, model: "local:nursery/base"}, {name: a, model: "local:nursery/arc"}]
      merge: {method: darex_q, base: base, params: {density: 0.3, q_rule: analytic_rows}}
      save_dtype: float32
merge: {method: linear}
"""


@pytest.fixture
def measured(here, smoke_nursery):
    """Statistics of the weights that layers are made of."""
    tensors = load_file(smoke_nursery / "nursery" / "base" / "model.safetensors")
    vectors = {name: torch.full(t.shape[-1:], 20.0) for name, t in tensors.items() if name.endswith("proj.weight")}
    save_file(vectors, here / "statistics.safetensors")
    return vectors


def test_activation_statistics_reach_a_recipe_within_the_recipe(run, here, measured):
    _, (plain,) = run(NESTED, out="plain")
    status, (done,) = run(NESTED, "--statistics", "statistics.safetensors")
    assert status == 0
    assert done["weights_digest"] != plain["weights_digest"]
    kept = json.loads((here / "out" / "huarizo.json").read_text())["recipe"]
    assert "statistics" not in kept
    assert len(kept["sources"][1]["recipe"]["statistics"]) == 64


def test_activation_statistics_that_no_method_looks_at_are_refused(run, here, measured):
    status, (event,) = run(RECIPE % "float32", "--statistics", "statistics.safetensors")
    assert (status, event["code"]) == (1, "invalid_recipe")
    assert "leave the file out" in event["message"]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_activation_statistics_of_other_weights_are_refused(run, here, options):
    save_file({"nonsense": torch.ones(4)}, here / "statistics.safetensors")
    status, (event,) = run(MEASURED % "", "--statistics", "statistics.safetensors", *options)
    assert (status, event["code"]) == (1, "bad_checkpoint")
    assert "nonsense" in event["message"]


def test_a_draw_is_made_with_the_generator_whose_folder_is_given(run, here, smoke_nursery):
    from core.checkpoint import read_header
    from core.generators import training
    from merging.generation.artifact import save
    from merging.generation.sources import model_source
    from merging.generation.training import train
    from merging.sources import Parents

    folder = smoke_nursery / "nursery" / "arc"
    digest, header = weights_digest(folder), read_header(folder)
    settings = training(chunk=32, width=32, blocks=1, batch=16, autoencoder_steps=20, denoiser_steps=20)
    source = model_source(Parents({digest: folder}, {digest: header}), digest)
    named = save(train(header, [source], settings), here / "generator")
    draw = (
        "sources: [{name: a, model: 'local:nursery/arc'}]\nmerge: {method: passthrough}\nsave_dtype: float32\n"
        f"generation: {{generator: {named}, selectors: [norms], rho: 0.02, seed: 7}}\n"
    )
    status, events = run(draw, out="without")
    assert (status, events[-1]["code"]) == (1, "missing_generator")
    status, events = run(draw, "--generator", "generator")
    assert status == 0
    before, after = load_file(folder / "model.safetensors"), load_file(here / "out" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed == {name for name in before if name.endswith("norm.weight")}
    norm = "model.norm.weight"
    moved = (after[norm] - before[norm].float()).norm() / before[norm].float().norm()
    assert float(moved) == pytest.approx(0.02, rel=0.02)
