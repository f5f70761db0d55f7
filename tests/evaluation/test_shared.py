"""The same equality on published items and a trained checkpoint, where a folder `shared` lies beside the repository."""

from pathlib import Path

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.objective import TaskSpec
from evaluation.catalog import TaskFolders, load_task
from evaluation.inspect import inspect_task
from evaluation.lm import HuarizoLM
from evaluation.prepare import prepare
from evaluation.scorer import Scorer

SHARED = Path(__file__).parents[3] / "shared"
CHECKPOINT = SHARED / "models" / "stories260K-fp32"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not CHECKPOINT.is_dir() or not (SHARED / "datasets").is_dir(),
        reason="no ../shared/models and ../shared/datasets",
    ),
]
FOLDERS = TaskFolders(SHARED / "datasets")


@pytest.fixture(scope="module")
def checkpoint():
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32), AutoTokenizer.from_pretrained(
        CHECKPOINT
    )


@pytest.mark.parametrize(("name", "documents"), [("arc_challenge", 820), ("winogrande", 887)])
def test_published_items_are_numbered_and_halved(name, documents):
    content = inspect_task(name, FOLDERS)
    assert content.documents == documents
    assert 0.4 < len(content.side("search")) / documents < 0.6


@pytest.mark.parametrize(("name", "shots"), [("arc_challenge", 0), ("winogrande", 3)])
def test_outcomes_and_runs_on_published_items_are_the_harness_s(name, shots, checkpoint, evaluate, near):
    model, tokenizer = checkpoint
    options = {"num_fewshot": shots or None, "limit": 25}
    theirs = evaluate(
        HFLM(model, tokenizer=tokenizer, batch_size=8), [load_task(name, FOLDERS, num_fewshot=shots)], **options
    )
    ours = evaluate(HuarizoLM(model, tokenizer), [load_task(name, FOLDERS, num_fewshot=shots)], **options)
    assert (ours.results, ours.arguments(name)) == (theirs.results, theirs.arguments(name))
    for mine, other in zip(ours.lls(name), theirs.lls(name), strict=True):
        assert all(map(near, mine, other))
    spec = TaskSpec(task=name, num_fewshot=shots)
    scorer = Scorer(
        prepare([spec], CHECKPOINT, FOLDERS, max_length=None), device=torch.device("cpu"), dtype=torch.float32
    )
    found = scorer.score(model, name, range(25))
    assert found.correct == tuple(int(sample[spec.metric_name]) for sample in theirs.samples[name])
