"""A candidate of 48 layers whose lower 24 are the reference's: what it gains from beginning at layer 24."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from benchmarks.claims import Report
from benchmarks.scoring_family import Family
from benchmarks.scoring_setting import NO_SHOTS, Corpus, fastest, processor_clock
from core.outcomes import Outcomes
from core.recipe import ResolvedRecipe
from evaluation.prepare import Prepared
from evaluation.reuse import HiddenStore
from evaluation.scorer import Layers, Scorer
from merging.resident import Built

#: 32 narrow layers, of which 24 and 24 make the candidate.
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 8192,
}
TASKS = ("arc_challenge", "winogrande", "hellaswag")
KEPT_BYTES = 1 << 30


def report_reuse(report: Report, corpus: Corpus, folder: Path, *, documents: int, repetitions: int) -> None:
    """Claim the speed-up, and that no outcome changes.

    Args:
        report: takes the claims.
        corpus: the documents.
        folder: for the checkpoint.
        documents: of each task.
        repetitions: of each measurement.
    """
    family = Family(folder / "deep", corpus, SIZES, ("a",))
    prepared = corpus.prepared(TASKS, NO_SHOTS)
    plain = Scorer(prepared, device=torch.device("cpu"), dtype=torch.float32)
    reference = family.recipe(
        slices=({"sources": [{"source": "a", "layers": list(range(SIZES["num_hidden_layers"]))}]},)
    )
    candidate = family.recipe(layout={"preset": "dus", "source": "a", "params": {"m": 8}})
    reusing, cost = _first(prepared, plain, reference, family.build(reference), documents, repetitions)
    built = family.build(candidate)
    found: dict[str, dict[str, Outcomes]] = {}

    def keep(name: str, scorer: Scorer) -> None:
        found[name] = _score(scorer, candidate, built, documents)

    both = {"plain": partial(keep, "plain", plain), "reusing": partial(keep, "reusing", reusing)}
    times = fastest(both, repetitions, processor_clock)
    name = "48 layers, the lower 24 the reference's"
    report.claim(f"{name}: speed-up over no reuse", times["plain"] / times["reusing"], "times", 1.7)
    report.claim(f"{name}: cost of keeping the reference's states, of its own time", cost, "of 1", better="lower")
    equal = sum(found["plain"][task] == found["reusing"][task] for task in TASKS)
    report.claim(f"{name}: tasks with equal outcomes", equal, "tasks", len(TASKS))
    report.note(f"{documents} documents each of {', '.join(TASKS)}, 0-shot, width {SIZES['hidden_size']}")


def _first(
    prepared: Prepared, plain: Scorer, recipe: ResolvedRecipe, built: Built, documents: int, repetitions: int
) -> tuple[Scorer, float]:
    """A scorer that keeps the states of the first candidate, and what that cost, as a part of the candidate's time."""
    filled: list[Scorer] = []

    def fill() -> None:
        store = HiddenStore(KEPT_BYTES)
        filled.append(Scorer(prepared, device=torch.device("cpu"), dtype=torch.float32, hidden=store))
        _score(filled[-1], recipe, built, documents)

    both = {"plain": partial(_score, plain, recipe, built, documents), "filling": fill}
    times = fastest(both, repetitions, processor_clock)
    return filled[-1], times["filling"] / times["plain"] - 1


def _score(scorer: Scorer, recipe: ResolvedRecipe, built: Built, documents: int) -> dict[str, Outcomes]:
    layers = Layers(recipe.embed_key(), built.layer_keys)
    return {task: scorer.score(built.model, task, range(documents), layers=layers) for task in TASKS}
