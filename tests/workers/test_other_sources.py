"""A search whose parents are a model with an adapter and a model of another vocabulary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.adapters import AdaptedModel
from core.errors import CheckpointError
from core.records import JobRecord
from core.states import JobState
from store import artifacts, models, trials
from tests.workers.conftest import Service, open_service

Q = "model.layers.0.self_attn.q_proj"
NEW = "<|new|>"


def write_adapter(base: Path, folder: Path, size: float = 0.02) -> None:
    outputs, inputs = load_file(base / "model.safetensors")[f"{Q}.weight"].shape
    folder.mkdir()
    factors = {"A": torch.linspace(-1, 1, inputs)[None], "B": torch.linspace(-size, size, outputs)[:, None]}
    named = {f"base_model.model.{Q}.lora_{which}.weight": factor for which, factor in factors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2}))


def write_grown(source: Path, folder: Path) -> None:
    """The model with one token more."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    rows = config["vocab_size"]
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & tensors.keys():
        tensors[name] = torch.cat([tensors[name], tensors[name][-1:]])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": rows + 1}))
    parsed = json.loads((folder / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    parsed["added_tokens"].append({"id": rows, "content": NEW, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(parsed))


@pytest.fixture(scope="module")
def bred(
    databases: Any, smoke_nursery: Path, tmp_path_factory: pytest.TempPathFactory, tasks_read_once: None
) -> Iterator[tuple[Service, JobRecord]]:
    """The service and its job, done."""
    from examples.nursery.tasks import write_task_files

    url, root = databases.take(), tmp_path_factory.mktemp("models")
    nursery = root / "nursery"
    shutil.copytree(smoke_nursery / "nursery", nursery)
    write_task_files(nursery / "tasks")
    write_adapter(nursery / "base", nursery / "lora")
    write_grown(nursery / "arc", nursery / "grown")
    opened = open_service(url, root, tmp_path_factory.mktemp("artifacts"))
    job = opened.post(
        models=[
            {"name": "base", "ref": "local:nursery/base"},
            {"name": "maths", "ref": "local:nursery/lora", "base": "base"},
            {"name": "grown", "ref": "local:nursery/grown"},
        ],
        space={
            "families": [
                {
                    "family": "merge",
                    "methods": ["task_arithmetic", "dare_ties"],
                    "base": "base",
                    "tokenizer": {"mode": "union"},
                }
            ]
        },
        budget={"trials": 2},
        export={"when": "always"},
    )
    yield opened, opened.finish(job.id)
    opened.close()
    databases.drop(url)


def test_such_a_search_goes_all_the_way(bred):
    service, job = bred
    assert job.state is JobState.SUCCEEDED, job.failure
    with service.database.reading() as session:
        every = trials.of_job(session, job.id)
        record = models.by_name(session, "local:nursery/lora")
    assert not [trial.failure for trial in every if trial.failure]
    assert record.header.changes[0].target == f"{Q}.weight"
    kinds = {trial.label: trial.resolved.sources[0].kind for trial in every if trial.origin == "parent"}
    assert kinds == {"base": "model", "maths": "adapter", "grown": "model"}


def test_its_parents_are_scored_under_their_own_tokenizers_and_its_candidates_under_the_union(bred):
    service, job = bred
    with service.database.reading() as session:
        every = trials.of_job(session, job.id)
    parents = {trial.label: trial.resolved for trial in every if trial.origin == "parent"}
    assert parents["base"].tokenizer_digest == parents["maths"].tokenizer_digest
    candidates = [trial.resolved for trial in every if trial.origin != "parent"]
    assert candidates and all(candidate.vocabulary.mode == "union" for candidate in candidates)
    digests = {candidate.tokenizer_digest for candidate in candidates}
    assert len(digests) == 1 and not digests & {parent.tokenizer_digest for parent in parents.values()}


def test_the_runner_holds_the_adapted_model_and_builds_it(bred):
    service, job = bred
    runner = service.runner()
    known = runner.models_of(job)
    assert isinstance(known["maths"], AdaptedModel)
    with service.database.reading() as session:
        every = trials.of_job(session, job.id)
    (parent,) = [trial.resolved for trial in every if trial.label == "maths"]
    built = runner.resident(known).build(parent)
    root = service.settings.model_roots[0] / "nursery"
    weight = load_file(root / "base" / "model.safetensors")[f"{Q}.weight"]
    a, b = (
        load_file(root / "lora" / "adapter_model.safetensors")[f"base_model.model.{Q}.lora_{x}.weight"] for x in "AB"
    )
    expected = (weight.double() + 2 * b.double() * a.double()).float().to(built.tensors[f"{Q}.weight"].dtype)
    assert torch.equal(built.tensors[f"{Q}.weight"], expected)


def test_its_export_opens_with_the_tokens_of_all(bred):
    service, job = bred
    with service.database.reading() as session:
        (artifact,) = [a for a in artifacts.of_job(session, job.id) if a.kind == "checkpoint"]
    folder = service.settings.artifact_root() / artifact.path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    winner = json.loads((folder / "config.json").read_text())
    assert model.config.vocab_size == winner["vocab_size"] >= len(tokenizer)
    assert tokenizer(NEW)["input_ids"] == [tokenizer.convert_tokens_to_ids(NEW)] != [tokenizer.unk_token_id]


def test_an_adapter_that_was_replaced_is_not_scored(bred):
    service, job = bred
    runner = service.runner()
    known = runner.models_of(job)
    folder = service.settings.model_roots[0] / "nursery" / "lora"
    before = (folder / "adapter_model.safetensors").read_bytes()
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=r"'maths' changed since it was inspected"):
            runner.resident(known)
    finally:
        (folder / "adapter_model.safetensors").write_bytes(before)


def test_without_a_union_the_job_fails_and_says_which_token_differs(bred):
    service, done = bred
    text = done.request.model_dump(mode="json")
    family = {key: value for key, value in text["space"]["families"][0].items() if key != "tokenizer"}
    job = service.post(models=text["models"], space={"families": [family]}, budget=text["budget"])
    while service.control():
        pass
    job = service.finish(job.id)
    assert job.state is JobState.FAILED and job.failure.code == "parents_do_not_fit"
    assert f"and {NEW!r}" in job.failure.message and "mode: union" in job.failure.message
