"""The `adapter_config.json` of PEFT: which of its fields are understood, and what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import CheckpointError

WAY_OUT = "merge it into its base with PEFT and use the result"
#: Fields that say how it was trained or loaded, or whose outcome the file's tensors show.
SILENT = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
        "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha",
        "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "modules_to_save", "peft_type",
        "peft_version", "qalora_group_size", "r", "rank_pattern", "alpha_pattern", "revision", "runtime_config",
        "target_modules", "task_type", "use_rslora",
    }
)  # fmt: skip
#: Ways to start the factors that leave the base as it is; the others (PiSSA, OLoRA, LoftQ ...) move it as well.
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
#: What a pattern may hold: names, and the few signs of regular expressions that always match quickly.
_PATTERN = re.compile(r"(?:[A-Za-z0-9_.^$|-]|\\\.|\\d\+?|\[[0-9]-[0-9]\])*")
_MAX_PATTERN, _MAX_PATTERNS, _MAX_REPEATS = 300, 2000, 2
_MAX_RANK, _MAX_ALPHA = 1 << 20, 1e9


@dataclass(frozen=True)
class AdapterConfig:
    """Ranks and scales of a LoRA.

    Attributes:
        r, alpha: of modules that no pattern names.
        ranks, alphas: by pattern; the first one that matches the end of a module's name counts, as in PEFT.
        stabilised: rank-stabilised LoRA divides by sqrt(r) (https://arxiv.org/abs/2312.03732).
    """

    r: int
    alpha: float
    ranks: tuple[tuple[re.Pattern[str], float], ...]
    alphas: tuple[tuple[re.Pattern[str], float], ...]
    stabilised: bool

    def rank(self, module: str) -> int:
        """r of one module."""
        return int(_first(module, self.ranks, self.r))

    def scale(self, module: str) -> float:
        """s = alpha / r, or alpha / sqrt(r)."""
        rank, alpha = self.rank(module), _first(module, self.alphas, self.alpha)
        return alpha / math.sqrt(rank) if self.stabilised else alpha / rank


def parse_config(config: Mapping[str, Any]) -> AdapterConfig:
    """The config of a plain LoRA.

    Raises:
        CheckpointError: another kind of adapter, a field that is not understood, or a damaged one; names the field.
    """
    if config.get("peft_type") != "LORA":
        raise _refused("peft_type", "must be 'LORA'", config)
    if config.get("init_lora_weights") not in STARTS:
        raise _refused("init_lora_weights", "must leave the base as it is", config)
    for field in sorted(config.keys() - SILENT - {"init_lora_weights"}):
        if config[field]:
            raise _refused(field, "is not understood", config)
    return AdapterConfig(
        r=int(_number(config, "r", whole=True)),
        alpha=_alpha(config),
        ranks=_patterns(config, "rank_pattern", whole=True),
        alphas=_patterns(config, "alpha_pattern"),
        stabilised=_switch(config, "use_rslora"),
    )


def _first(module: str, patterns: Iterable[tuple[re.Pattern[str], float]], otherwise: float) -> float:
    return next((value for pattern, value in patterns if pattern.match(module)), otherwise)


def _patterns(
    config: Mapping[str, Any], field: str, *, whole: bool = False
) -> tuple[tuple[re.Pattern[str], float], ...]:
    found = config.get(field) or {}
    if not isinstance(found, dict) or len(found) > _MAX_PATTERNS:
        raise _refused(field, f"must be an object of at most {_MAX_PATTERNS} names", config)
    for key in found:
        if len(key) > _MAX_PATTERN or key.count("+") > _MAX_REPEATS or not _PATTERN.fullmatch(key):
            raise CheckpointError(
                f"{field!r} of an adapter may hold names of modules only, but has {key[:_MAX_PATTERN]!r}: {WAY_OUT}",
                where=field,
            )
    return tuple((re.compile(rf"(.*\.)?({key})$"), _number(found, key, whole=whole)) for key in found)


def _number(config: Mapping[str, Any], field: str, *, whole: bool = False) -> float:
    """A rank (`whole`) or an alpha."""
    value: Any = config.get(field)
    if whole and not (type(value) is int and 0 < value <= _MAX_RANK):
        raise _refused(field, f"must be a whole number from 1 to {_MAX_RANK}", config)
    if type(value) not in (int, float) or not abs(value) <= _MAX_ALPHA:
        raise _refused(field, "must be a finite number", config)
    return float(value)


def _alpha(config: Mapping[str, Any]) -> float:
    alpha = _number(config, "lora_alpha")
    if alpha == 0:
        raise CheckpointError(
            "'lora_alpha' of an adapter must not be 0, with which it changes nothing: name its base alone, or correct "
            "the file",
            where="lora_alpha",
        )
    return alpha


def _switch(config: Mapping[str, Any], field: str) -> bool:
    """True, false, or null for false; what merely looks like one of them would be guessed."""
    value = config.get(field)
    if value is not None and not isinstance(value, bool):
        raise _refused(field, "must be true, false or null", config)
    return bool(value)


def _refused(field: str, rule: str, config: Mapping[str, Any]) -> CheckpointError:
    return CheckpointError(f"{field!r} of an adapter {rule}, but is {config.get(field)!r}: {WAY_OUT}", where=field)
