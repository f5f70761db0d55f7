"""A sampler's draws come from hash(study seed, trial number) and from nothing else.

So the k-th proposal after the same history is the same in any process, however often a proposer was restarted, and a
crash between two proposals changes nothing.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import optuna


def entropy(seed: int, number: int) -> list[int]:
    """Eight 32-bit words for the `number`-th trial of a study."""
    digest = hashlib.sha256(f"trial:{seed}:{number}".encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


class SeededPerTrial(ABC):
    """Mixin in front of an Optuna sampler: reseeds every generator before each trial.

    The class that mixes it in says with `generators` which random states the sampler draws from, and sets
    `study_seed`.
    """

    study_seed: int

    @abstractmethod
    def generators(self) -> tuple[np.random.RandomState, ...]:
        """All random states the sampler draws from."""

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Called by Optuna when a trial is created, before anything is drawn for it."""
        for position, generator in enumerate(self.generators()):
            generator.seed([*entropy(self.study_seed, trial.number), position])
        parent: Any = super()
        parent.before_trial(study, trial)
