"""Which parameters mattered: PED-ANOVA over a study's trials, for each condition by itself, and slices to look at.

Watanabe, Bansal, Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces (IJCAI
2023, arXiv 2304.10255), as Optuna computes it: how far a parameter's distribution among the best candidates departs
from its distribution among all. Differs from a plain call of it:

- A conditional space has no common parameters to compare, so each set of parameters that exist together is judged over
  the candidates that have it.
- The best are a tenth, but at least five: over fewer the distribution is an accident.
- A parameter of pure noise is judged along with the others. What does not exceed its share means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState as OptunaState

from core.noun import canonical_json
from core.params import ChoiceParam, FloatParam
from core.space import Hole, SearchSpace
from search.past import Past
from search.suggest import distribution

#: Fewer results than this say nothing of a parameter.
LEAST = 10
#: Parameters of noise whose shares are averaged.
NOISE = 8


def importance(space: SearchSpace, pasts: Sequence[Past]) -> list[dict[str, Any]]:
    """Shares of importance for every set of parameters that exist together, the set without conditions first.

    Returns:
        Per set: `when` (the condition), `trials` (results), `parameters` (name and share, the largest first, summing
        to 1 with the noise left out) and `noise` (the mean share of a parameter that does nothing); or, with too few
        results or nothing that varies, `reason`.
    """
    heard = [past for past in pasts if past.score is not None and past.state in ("complete", "stopped")]
    groups: dict[str, list[Hole]] = {}
    for hole in space.holes:
        if not distribution(hole.spec).single():
            groups.setdefault(canonical_json(hole.when), []).append(hole)
    return [_of_group(holes, [past for past in heard if holes[0].active(past.values)]) for holes in groups.values()]


def _of_group(holes: Sequence[Hole], mine: Sequence[Past]) -> dict[str, Any]:
    found: dict[str, Any] = {"when": dict(holes[0].when), "trials": len(mine), "parameters": [], "noise": None}
    if len(mine) < LEAST:
        return found | {"reason": f"{len(mine)} results, and fewer than {LEAST} say nothing"}
    shares = _shares({hole.name: distribution(hole.spec) for hole in holes}, mine)
    if shares is None:
        return found | {"reason": "all results are equal"}
    real = {name: value for name, value in shares.items() if not name.startswith("~")}
    total = sum(real.values())
    if total <= 0:
        return found | {"reason": "the best are like all others in every parameter"}
    noise = float(np.mean([value for name, value in shares.items() if name.startswith("~")])) / total
    ranked = sorted(real.items(), key=lambda item: (-item[1], item[0]))
    return found | {
        "parameters": [{"name": name, "importance": value / total} for name, value in ranked],
        "noise": noise,
    }


def _shares(known: Mapping[str, BaseDistribution], mine: Sequence[Past]) -> dict[str, float] | None:
    """Raw importances by name, those of noise under names that begin with a tilde; None where scores do not vary."""
    scores = [float(past.score or 0.0) for past in mine]
    if max(scores) - min(scores) <= 0.0:
        return None
    noise = {f"~{number}": FloatDistribution(0.0, 1.0) for number in range(NOISE)}
    draws = np.random.default_rng(0).random((len(mine), NOISE))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for past, drawn in zip(mine, draws, strict=True):
        own = {name: past.values[name] for name in known}
        own |= {f"~{number}": float(value) for number, value in enumerate(drawn)}
        study.add_trial(
            optuna.trial.create_trial(
                state=OptunaState.COMPLETE,
                params=own,
                distributions={**known, **noise},
                value=float(past.score or 0.0),
            )
        )
    quantile = min(0.5, max(0.1, 5 / len(mine)))
    raw = PedAnovaImportanceEvaluator(target_quantile=quantile).evaluate(study)
    return {name: max(float(value), 0.0) for name, value in raw.items()}


def slices(space: SearchSpace, pasts: Sequence[Past], *, most: int = 1000) -> list[dict[str, Any]]:
    """Per parameter its values against the score that was told, to be drawn.

    Args:
        space: the compiled search space.
        pasts: the trials.
        most: points per parameter; the latest are kept.
    """
    heard = [past for past in pasts if past.score is not None and past.state in ("complete", "stopped")]
    found = []
    for hole in space.holes:
        if distribution(hole.spec).single():
            continue
        points = [
            {"number": past.number, "value": past.values[hole.name], "score": past.score, "state": past.state}
            for past in heard
            if hole.name in past.values
        ]
        found.append({**_axis(hole), "points": points[-most:]})
    return found


def _axis(hole: Hole) -> dict[str, Any]:
    spec, axis = hole.spec, {"name": hole.name, "when": dict(hole.when)}
    if isinstance(spec, ChoiceParam):
        return {**axis, "choices": list(spec.choices)}
    log = isinstance(spec, FloatParam) and spec.log
    return {**axis, "low": float(spec.search_low), "high": float(spec.search_high), "log": log}
