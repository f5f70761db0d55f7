"""Sampled candidates, each scored in full once, so that thousands of choices among them can be replayed in seconds.

    python -m benchmarks.generation_samples [--pools NAME ...] [--seconds 200]

A pool is one arm around one place. Its candidates differ in their seeds and radii; candidate k of one arm has the seed
and the radius of candidate k of the other. What is scored is kept, a later run goes on from there, and the whole is
committed beside the results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import ROOT
from benchmarks.generation_setting import NORMS, Setting, everything, norms_generator, parents_generator
from core.draws import Draw
from core.recipe import Recipe
from core.tasks import Side

Bools = NDArray[np.bool_]

FILE = ROOT / "benchmarks" / "results" / "nursery-7-samples.npz"
ARMS = ("diffusion", "matched-noise")
#: One-shot: norms of the base, around the base. Of parents: norms and row norms, around the specialists' merge.
PLACES = ("one-shot", "parents")
POOLS = tuple(f"{place} {arm}" for place in PLACES for arm in ARMS)
COUNT = 24
RADII = (0.01, 0.03, 0.1)
#: Items per task.
ITEMS: Mapping[Side, int] = {"search": 500, "heldout": 1000}
SIDES: tuple[Side, ...] = ("search", "heldout")


@dataclass(frozen=True)
class Pool:
    """Candidates of one arm around one place.

    Attributes:
        search, held_out: (1 + candidates, tasks, items) whether right; the first is what they lie around.
        radii: (candidates,).
        generator: digest of the one that they were drawn from.
    """

    search: Bools
    held_out: Bools
    radii: NDArray[np.float64]
    generator: str = ""

    @classmethod
    def load(cls, name: str, file: Path = FILE) -> Self:
        """One of those kept."""
        with np.load(file) as kept:
            radii = np.array([RADII[k % len(RADII)] for k in range(COUNT)])
            return cls(kept[f"{name} search"], kept[f"{name} heldout"], radii, str(kept[f"{name} generator"]))


def complete(file: Path = FILE) -> list[str]:
    """The pools that were scored to the end."""
    with np.load(file) as kept:
        sides = {name: [len(kept[key]) for side in SIDES if (key := f"{name} {side}") in kept] for name in POOLS}
    return [name for name, lengths in sides.items() if lengths == [COUNT + 1] * len(SIDES)]


def recipes(setting: Setting, name: str, generator: str) -> list[Recipe]:
    """What a pool scores, in order: what is sampled around, then its samples."""
    place, arm = name.split(" ")
    alone = place == "one-shot"
    around = setting.recipe() if alone else setting.merged()
    selectors = NORMS if alone else everything(setting)
    draws = [
        Draw(generator=generator, selectors=selectors, arm=arm, seed=k, rho=RADII[k % len(RADII)])  # type: ignore[arg-type]
        for k in range(COUNT)
    ]
    return [around, *(around.evolve(generation=draw) for draw in draws)]


def drawn_from(setting: Setting, name: str) -> str:
    """Digest of the generator of a pool, trained where it is not kept."""
    place, _ = name.split(" ")
    return (norms_generator(setting) if place == "one-shot" else parents_generator(setting)).digest


def scored(setting: Setting, recipe: Recipe) -> dict[str, Bools]:
    """(tasks, items) whether right, by side."""
    return {side: np.asarray(setting.nursery.margins(recipe, side) > 0) for side in SIDES}


def collect(setting: Setting, names: list[str], seconds: float, file: Path = FILE) -> bool:
    """Score what is missing, for as long as there is time; whether nothing is.

    Answers of samples from another generator than today's are forgotten.
    """
    begun = time.monotonic()
    kept = dict(np.load(file)) if file.exists() else {}
    for name in names:
        generator = drawn_from(setting, name)
        if str(kept.get(f"{name} generator")) != generator:
            kept = {key: answers for key, answers in kept.items() if not key.startswith(f"{name} ")}
            kept[f"{name} generator"] = np.array(generator)
        for k, recipe in enumerate(recipes(setting, name, generator)):
            done = len(kept.get(f"{name} search", ()))
            if k < done:
                continue
            if time.monotonic() - begun > seconds:
                return False
            for side, right in scored(setting, recipe).items():
                key = f"{name} {side}"
                kept[key] = np.concatenate([kept[key], right[None]]) if key in kept else right[None]
            _save(file, kept)
    return True


def _save(file: Path, kept: dict[str, NDArray[Any]]) -> None:
    aside = file.with_name("aside.npz")
    np.savez_compressed(aside, **kept)  # type: ignore[arg-type]
    aside.replace(file)


def main() -> None:
    """Parse the command line and collect."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation_samples", description=__doc__)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many, to go on another time")
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = collect(Setting(items=ITEMS), options.pools, options.seconds, options.file)
    print("complete" if done else "more to come")


if __name__ == "__main__":
    main()
