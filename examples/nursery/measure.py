"""``python -m examples.nursery.measure <folder>``: the figures of a grown family, and whether they are as designed.

It scores the family, blends its weights, re-stacks the best blend and prints the tables of ``README.md``. The blends
are chosen on search items (the validation split) and proven on held-out items (the test split).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from examples.nursery.corpus import SKILLS
from examples.nursery.grow import MANIFEST, NurseryFamily
from examples.nursery.scoring import Exam
from examples.nursery.world import purpose_rng

Weights = Mapping[str, Tensor]
Scores = dict[str, float]
Blend = tuple[float, float, float]

UNIFORM: Blend = (1 / 3, 1 / 3, 1 / 3)
KNOWN: tuple[Blend, ...] = (UNIFORM, (0.5,) * 3, (0.7,) * 3, (1.0,) * 3, (1.3,) * 3, (1.08, 0.57, 1.20))
DRAWN, LOCAL = 12, 12
RANGE = (0.1, 1.5)
SEARCH_ITEMS = 300
LAYOUTS: dict[str, tuple[int, ...]] = {
    "as blended": (0, 1, 2, 3, 4, 5),
    "drop 0": (1, 2, 3, 4, 5),
    "drop 1": (0, 2, 3, 4, 5),
    "drop 2": (0, 1, 3, 4, 5),
    "drop 4": (0, 1, 2, 3, 5),
    "drop 3-5": (0, 1, 2),
    "drop 2-5": (0, 1),
    "swap 1,2": (0, 2, 1, 3, 4, 5),
    "swap 0,1": (1, 0, 2, 3, 4, 5),
    "duplicate 0": (0, 0, 1, 2, 3, 4, 5),
    "duplicate 1": (0, 1, 1, 2, 3, 4, 5),
    "duplicate 2": (0, 1, 2, 2, 3, 4, 5),
    "duplicate 3": (0, 1, 2, 3, 3, 4, 5),
    "DUS 0..3 + 2..5": (0, 1, 2, 3, 2, 3, 4, 5),
    "DUS 0..4 + 1..5": (0, 1, 2, 3, 4, 1, 2, 3, 4, 5),
}


def macro(scores: Scores) -> float:
    """The plain mean over the three tasks."""
    return sum(scores.values()) / len(scores)


@dataclass(frozen=True)
class Bench:
    """A family in memory: its weights and its encoded items."""

    config: LlamaConfig
    base: Weights
    specialists: dict[str, Weights]
    search: dict[str, Exam]
    held_out: dict[str, Exam]

    @classmethod
    def open(cls, family: NurseryFamily) -> Bench:
        tokenizer = Tokenizer.from_file(str(family.base / "tokenizer.json"))
        return cls(
            config=LlamaConfig.from_pretrained(family.base),
            base=load_file(family.base / "model.safetensors"),
            specialists={skill: load_file(path / "model.safetensors") for skill, path in family.specialists.items()},
            search={skill: Exam.read(family.tasks, skill, "validation", tokenizer, SEARCH_ITEMS) for skill in SKILLS},
            held_out={skill: Exam.read(family.tasks, skill, "test", tokenizer) for skill in SKILLS},
        )

    def blend(self, coefficients: Blend) -> Weights:
        """base + sum of coefficient x (specialist - base), tensor by tensor."""
        parts = list(zip(coefficients, self.specialists.values(), strict=True))
        return {
            name: base + sum((c * (weights[name] - base) for c, weights in parts), torch.zeros(()))
            for name, base in self.base.items()
        }

    def scores(self, weights: Weights, exams: Mapping[str, Exam], order: Sequence[int] | None = None) -> Scores:
        """Skill → accuracy in percent, of the weights with their layers in ``order``."""
        model = restacked(self.config, weights, order or range(self.config.num_hidden_layers))
        return {skill: exam.accuracy(model) for skill, exam in exams.items()}

    def best_blend(self, seed: int) -> tuple[Blend, int]:
        """The best of the known, some drawn and some neighbouring blends on search items, and how many were tried."""
        rng = purpose_rng(seed, "measure")
        found = {blend: self._search_macro(blend) for blend in (*KNOWN, *(_drawn(rng) for _ in range(DRAWN)))}
        for _ in range(LOCAL):
            near = _near(max(found, key=lambda blend: found[blend]), rng)
            found[near] = self._search_macro(near)
        return max(found, key=lambda blend: found[blend]), len(found)

    def _search_macro(self, blend: Blend) -> float:
        return macro(self.scores(self.blend(blend), self.search))


def _drawn(rng: random.Random) -> Blend:
    return (round(rng.uniform(*RANGE), 2), round(rng.uniform(*RANGE), 2), round(rng.uniform(*RANGE), 2))


def _near(blend: Blend, rng: random.Random) -> Blend:
    a, b, c = (round(min(RANGE[1], max(RANGE[0], part + rng.gauss(0, 0.15))), 2) for part in blend)
    return a, b, c


def restacked(config: LlamaConfig, weights: Weights, order: Sequence[int]) -> LlamaForCausalLM:
    """A model whose i-th layer has the weights of layer ``order[i]``."""
    deep = LlamaConfig.from_dict({**config.to_dict(), "num_hidden_layers": len(order)})
    state = {name: tensor for name, tensor in weights.items() if not name.startswith("model.layers.")}
    for place, layer in enumerate(order):
        prefix = f"model.layers.{layer}."
        for name in (name for name in weights if name.startswith(prefix)):
            state[f"model.layers.{place}.{name.removeprefix(prefix)}"] = weights[name]
    model = LlamaForCausalLM(deep)
    model.load_state_dict(state)
    return model.eval()


@dataclass(frozen=True)
class Figures:
    """What was measured: held-out scores per model or blend, and macro on search items per layout."""

    held_out: dict[str, Scores]
    layouts: dict[str, float]
    best: str
    tried: int

    @property
    def best_parent(self) -> float:
        return max(macro(self.held_out[skill]) for skill in SKILLS)


def measure(family: NurseryFamily) -> Figures:
    """Score everything; about three minutes of one core."""
    bench = Bench.open(family)
    best, tried = bench.best_blend(family.seed)
    named = {"base": bench.base, **bench.specialists}
    blends = {_named(blend): bench.blend(blend) for blend in dict.fromkeys((*KNOWN, best))}
    held_out = {name: bench.scores(weights, bench.held_out) for name, weights in {**named, **blends}.items()}
    layouts = {name: macro(bench.scores(blends[_named(best)], bench.search, order)) for name, order in LAYOUTS.items()}
    return Figures(held_out, layouts, _named(best), tried)


def _named(blend: Blend) -> str:
    return "blend " + " / ".join(f"{part:.2f}" for part in blend)


def broken_promises(figures: Figures) -> list[str]:
    """What the design promises and these figures do not show; empty if all is well."""
    held_out, base = figures.held_out, figures.held_out["base"]
    uniform, best = macro(held_out[_named(UNIFORM)]), macro(held_out[figures.best])
    promises = {
        "each specialist has at least 75 % on its own task": all(held_out[s][s] >= 75 for s in SKILLS),
        "each specialist is the best parent on its own task by 20": all(
            held_out[s][s] >= held_out[other][s] + 20 for s in SKILLS for other in ("base", *SKILLS) if other != s
        ),
        "a specialist gains at most 10 on any other task": all(
            held_out[s][task] <= base[task] + 10 for s in SKILLS for task in SKILLS if task != s
        ),
        "the best blend beats the best parent by 20": best >= figures.best_parent + 20,
        "the uniform average is not the best blend, by 10": best >= uniform + 10,
        "dropping layers hurts by degrees": _hurts_by_degrees(figures.layouts),
    }
    return [promise for promise, kept in promises.items() if not kept]


def _hurts_by_degrees(layouts: dict[str, float]) -> bool:
    whole, one, most = layouts["as blended"], layouts["drop 1"], layouts["drop 2-5"]
    return whole - 3 > one > most > layouts["drop 0"]


def report(figures: Figures) -> str:
    """The two tables of README.md."""
    lines = ["| model | ARC | Winogrande | HellaSwag | macro |", "|---|---|---|---|---|"]
    for name, scores in figures.held_out.items():
        cells = " | ".join(f"{scores[skill]:.1f}" for skill in SKILLS)
        shown = f"**{name}**" if name == figures.best else name
        lines.append(f"| {shown} | {cells} | {macro(scores):.1f} |")
    lines += ["", "| layout | macro |", "|---|---|"]
    lines += [f"| {name} | {score:.1f} |" for name, score in figures.layouts.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the figures; exit with status 1 and the broken promises if there are any."""
    parser = argparse.ArgumentParser(prog="python -m examples.nursery.measure", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder that holds a grown nursery")
    folder: Path = parser.parse_args().folder
    seed: int = json.loads((folder / MANIFEST).read_text())["recipe"]["seed"]
    figures = measure(NurseryFamily(folder, seed))
    print(report(figures))
    print(f"\nbest of {figures.tried} blends on {SEARCH_ITEMS} search items per task: {figures.best}")
    if broken := broken_promises(figures):
        raise SystemExit("not as designed: " + "; ".join(broken))


if __name__ == "__main__":
    main()
