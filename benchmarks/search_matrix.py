"""A matrix of real candidates, each scored in full once, so that whole searches can be replayed on it in seconds.

    python -m benchmarks.search_matrix FOLDER [--seed 7] [--count 640]

Candidates are scrambled Sobol points over the weights of three task vectors. What a search asks between them is told
from the nearest ones: every item's margin is a local linear fit over its neighbours' margins. How well that does is
measured on candidates left out (`error`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from core.params import Scalar
from core.space import SearchSpace

Floats = NDArray[np.float64]

COUNT = 640
ITEMS = {"search": 300, "heldout": 400}
#: Neighbours of a local fit, as a multiple of its coefficients.
NEIGHBOURS = 4


@dataclass(frozen=True)
class Matrix:
    """Candidates and their margins.

    Attributes:
        points: (candidates, dimensions) values of the space's holes, in hole order.
        search, held_out: (candidates, tasks, items) margins along the study's order.
        names: of the holes.
    """

    points: Floats
    search: Floats
    held_out: Floats
    names: tuple[str, ...]

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `collect` wrote."""
        with np.load(file) as kept:
            return cls(
                kept["points"].astype(np.float64),
                kept["search"].astype(np.float64),
                kept["held_out"].astype(np.float64),
                tuple(str(name) for name in kept["names"]),
            )

    @cached_property
    def width(self) -> Floats:
        """(dimensions,) extent of the box that the points fill."""
        return np.asarray(self.points.max(axis=0) - self.points.min(axis=0))

    def weights(self, point: Floats, without: int | None = None) -> tuple[NDArray[np.intp], Floats]:
        """Neighbours of a point and what each one's margins count for there: a local linear fit, as one product.

        Args:
            point: (dimensions,).
            without: a candidate that is left out, to try the fit on it.
        """
        away = (self.points - point) / self.width
        distance = np.einsum("nd,nd->n", away, away)
        if without is not None:
            distance[without] = np.inf
        count = NEIGHBOURS * (len(point) + 1)
        near = np.argpartition(distance, count)[:count]
        reach = distance[near].max()
        closeness = (1 - distance[near] / (1.0001 * reach)) ** 2
        design = np.hstack([np.ones((count, 1)), away[near]])
        weighted = design * closeness[:, None]
        # The first row of the hat matrix: the fit's value at the point itself.
        normal = design.T @ weighted + 1e-6 * np.eye(design.shape[1])
        return near, np.asarray(np.linalg.solve(normal, weighted.T)[0])

    def at(self, values: Mapping[str, Scalar], *, held_out: bool = False) -> Floats:
        """(tasks, items) margins at some values."""
        near, weights = self.weights(np.array([float(values[name]) for name in self.names]))
        bank = self.held_out if held_out else self.search
        return np.asarray(np.tensordot(weights, bank[near], axes=1))

    def errors(self, count: int, seed: int = 0) -> tuple[float, float, float]:
        """Of the fit, over candidates left out in turn: share of items judged otherwise, the error of the macro mean
        and its bias, in points."""
        chosen = np.random.default_rng(seed).choice(len(self.points), count, replace=False)
        wrong, misses = [], []
        for index in chosen:
            near, weights = self.weights(self.points[index], without=int(index))
            found, truth = np.tensordot(weights, self.search[near], axes=1) > 0, self.search[index] > 0
            wrong.append(float((found != truth).mean()))
            misses.append(100 * float(found.mean() - truth.mean()))
        return float(np.mean(wrong)), float(np.std(misses)), float(np.mean(misses))


def points(space: SearchSpace, count: int, seed: int) -> Floats:
    """(count, dimensions) scrambled Sobol points over the space's numeric holes."""
    bounds = [(float(h.spec.search_low), float(h.spec.search_high)) for h in space.holes]  # type: ignore[union-attr]
    low, high = np.array(bounds).T
    sampler = qmc.Sobol(len(bounds), scramble=True, rng=np.random.default_rng(seed))
    drawn = sampler.random_base2(int(np.ceil(np.log2(count))))[:count]
    return np.asarray(low + drawn * (high - low))


def collect(folder: Path, seed: int, count: int = COUNT) -> Path:
    """Score the candidates of the nursery grown in `folder`; what is there already is kept.

    Returns:
        The file.
    """
    # Imported here: replays need no model library.
    import torch

    from benchmarks.search_nursery import Nursery

    torch.set_num_threads(1)
    nursery = Nursery(folder, seed, {"search": ITEMS["search"], "heldout": ITEMS["heldout"]})
    space = nursery.space()
    wanted, file = points(space, count, seed), folder / "matrix.npz"
    done = Matrix.load(file) if file.exists() else None
    search = [] if done is None else list(done.search)
    held_out = [] if done is None else list(done.held_out)
    names = tuple(hole.name for hole in space.holes)
    for index in range(len(search), count):
        values = dict(zip(names, map(float, wanted[index]), strict=True))
        search.append(nursery.of_values(space, values, "search"))
        held_out.append(nursery.of_values(space, values, "heldout"))
        if (index + 1) % 20 == 0 or index + 1 == count:
            _save(file, wanted[: index + 1], search, held_out, names)
            print(f"{index + 1} of {count}", flush=True)
    return file


def _save(file: Path, wanted: Floats, search: list[Floats], held_out: list[Floats], names: tuple[str, ...]) -> None:
    """Half precision keeps every sign, and three digits of what a margin is smoothed by."""
    half = {"search": np.array(search, np.float16), "held_out": np.array(held_out, np.float16)}
    aside = file.with_name("aside.npz")
    np.savez_compressed(aside, points=wanted, names=np.array(names), **half)
    aside.replace(file)


def main() -> None:
    """Parse the command line and collect."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_matrix", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the nursery was grown")
    parser.add_argument("--seed", type=int, default=7, help="of the nursery")
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args()
    file = collect(options.folder, options.seed, options.count)
    wrong, spread, bias = Matrix.load(file).errors(60)
    print(f"{file}: {100 * wrong:.1f} % of items told otherwise, macro off by {spread:.2f} points, bias {bias:+.2f}")


if __name__ == "__main__":
    main()
