"""How a generator of weights is trained: its settings, and the presets people ask for by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from core.errors import HuarizoError, UnknownNameError
from core.noun import Noun
from core.selectors import Selectors

Parameterisation = Literal["gain", "full", "delta"]
_Steps = Annotated[int, Field(ge=1, le=1_000_000)]
#: Sources that a generator learns from at most: models and candidates together, the base among them.
MOST_SOURCES = 63


def _even(width: int) -> int:
    if width % 2:
        raise ValueError(
            f"half of it are sines and half cosines, so it must be even, but is {width!r}: take {width + 1!r}"
        )
    return width


class Training(Noun):
    """What a generator is trained on and how; the defaults fit norms, and blocks given more width and steps.

    Attributes:
        selectors: which tensors it is about.
        parameterisation: `gain` takes the norms of a matrix's rows (its directions stay untouched) and the values of a
            vector; `full` takes all values; `delta` takes all values less the mean of the sources.
        chunk: numbers that are encoded together; fewer where no selected tensor has so many.
        latent: numbers of a chunk's code; None is as many as the chunk has, so that nothing is lost.
        width, blocks: of the autoencoder and of the denoiser; the width is even.
        posterior_std: noise of the code, at least; in units of the normalised weights' spread where nothing is
            compressed.
        fixed_std: whether the noise of the code stays at that.
        augment: noise on what the autoencoder sees in training, in the same units.
        beta, free_bits: weight of the KL divergence, and nats per number of the code that are free.
        autoencoder_steps, denoiser_steps: of training.
        batch: chunks per step.
        rate: the optimiser's, at its highest; it falls to zero along a cosine.
        ema: decay of the average of the denoiser's and the autoencoder's weights, which is what is kept.
        drop: share of examples that are trained without their condition, which `guidance` needs. With several sources
            a tenth at least is trained without its source, because samples name none.
        freeze: share of each tensor's values that stay as they are: those furthest from the median.
        seed: of everything random in it.
    """

    selectors: Selectors = ("norms",)
    parameterisation: Parameterisation = "gain"
    chunk: Annotated[int, Field(ge=8, le=16384)] = 1024
    latent: Annotated[int, Field(ge=2, le=16384)] | None = None
    width: Annotated[int, Field(ge=8, le=8192), AfterValidator(_even)] = 256
    blocks: Annotated[int, Field(ge=1, le=24)] = 3
    posterior_std: Annotated[float, Field(gt=0, le=1)] = 0.1
    fixed_std: bool = False
    augment: Annotated[float, Field(ge=0, le=1)] = 0.03
    beta: Annotated[float, Field(ge=0, le=1)] = 1e-4
    free_bits: Annotated[float, Field(ge=0, le=8)] = 0.02
    autoencoder_steps: _Steps = 1200
    denoiser_steps: _Steps = 1500
    batch: Annotated[int, Field(ge=1, le=65536)] = 64
    rate: Annotated[float, Field(gt=0, le=0.1)] = 1e-3
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.1
    freeze: Annotated[float, Field(ge=0, le=0.1)] = 0.001
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def steps(self) -> int:
        """Of both stages."""
        return self.autoencoder_steps + self.denoiser_steps


#: Fields that differ from the defaults, by name. `explore-llama` follows what is known of the model card that weights
#: from diffusion became known by: one checkpoint, a norm of 4096 numbers in a code of 1024, next to no KL divergence
#: and no dropout of the condition. `explore-llama-layers` is its second half, the last block and the FFN of two more,
#: whose codes lose nothing here: the values of a matrix are not to be had from fewer numbers.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "blocks": {
        "selectors": ("block:-1",),
        "width": 1024,
        "batch": 512,
        "autoencoder_steps": 3000,
        "denoiser_steps": 6000,
    },
    "explore-llama": {
        "selectors": ("norms",),
        "parameterisation": "full",
        "chunk": 4096,
        "latent": 1024,
        "beta": 1e-6,
        "free_bits": 0.0,
        "posterior_std": 0.01,
        "augment": 0.0,
        "drop": 0.0,
        "freeze": 0.0,
    },
}
PRESETS["explore-llama-layers"] = PRESETS["explore-llama"] | {
    "selectors": ("block:-1", "ffn:30", "ffn:24"),
    "chunk": 1024,
    "width": 2048,
    "batch": 1024,
    "autoencoder_steps": 20_000,
    "denoiser_steps": 40_000,
}


def training(preset: str = "default", **changes: Any) -> Training:
    """A preset with some fields changed.

    Raises:
        UnknownNameError: no such preset.
        pydantic.ValidationError: a field out of bounds.
    """
    if preset not in PRESETS:
        raise UnknownNameError.suggest(preset, PRESETS, where="preset")
    return Training(**PRESETS[preset] | changes)


def checked(preset: str, changes: dict[str, Any]) -> Training:
    """As `training`, for the validators of nouns: what is wrong is a plain sentence.

    Raises:
        ValueError: no such preset, or a field out of bounds.
    """
    try:
        return training(preset, **changes)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"training.{place}: {first['msg'].removeprefix('Value error, ')}") from None
    except HuarizoError as error:
        raise ValueError(error.message) from None


def too_many(models: int, top: int, where: str) -> str | None:
    """Why so many models and candidates cannot be learned from together; None where they can.

    Args:
        models, top: how many of either.
        where: the field that says how many candidates.
    """
    if models + top <= MOST_SOURCES:
        return None
    return (
        f"a generator learns from at most {MOST_SOURCES!r} sources, but {models!r} models and the best {top!r} "
        f"candidates are {models + top!r}: set `{where}` to {MOST_SOURCES - models!r} or less"
    )
