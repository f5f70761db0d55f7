"""A draw: how one candidate's weights are sampled from a generator. Everything that decides its bytes, in a few bytes.

    {"generator": "<digest>", "selectors": ["norms"], "arm": "diffusion", "seed": 7, "rho": 0.01}

A recipe with a draw is the weights W0 that the rest of it describes, with a sample around them. Per tensor:

    anchored   W' = W0 + b a [T(D(z')) - T(D(z0))],   z0 = E(W0)      strength 0 is W0, bit for bit
    absolute   W' = W0 + b a [T(D(z')) - W0]                           what one-shot generation does

E and D are the generator's encoder and decoder, T undoes its normalisation, b is the blend and a the amount of the
tensor's layer. Under a radius rho the change is rescaled, so that its norm is a rho |W0|.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.noun import Noun
from core.params import ChoiceParam, FloatParam, IntParam
from core.selectors import Selectors

Arm = Literal["diffusion", "posterior", "matched-noise", "parent-average"]
Mode = Literal["anchored", "absolute"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

STRENGTH = FloatParam(
    name="strength",
    default=0.6,
    low=0.0,
    high=1.0,
    search_low=0.05,
    search_high=1.0,
    searched=False,
    scope="recipe",
    about="share of the diffusion's steps that are taken back: 0 is the base, 1 starts from noise alone",
)
TAU = FloatParam(
    name="tau",
    default=1.0,
    low=0.0,
    high=8.0,
    search_low=0.5,
    search_high=3.0,
    scope="recipe",
    about="temperature: factor on the noise",
)
ETA = ChoiceParam(
    name="eta", default=0.0, choices=(0.0, 1.0), about="noise added at every step: 0 as DDIM, 1 as DDPM (ancestral)"
)
GUIDANCE = FloatParam(
    name="guidance",
    default=1.0,
    low=0.0,
    high=8.0,
    search_low=0.0,
    search_high=3.0,
    searched=False,
    scope="recipe",
    about="weight of the condition (layer, kind, score) against none; 1 is the plain condition",
)
STEPS = IntParam(
    name="steps", default=25, low=1, high=1000, search_low=10, search_high=50, searched=False, about="of the sampler"
)
BLEND = FloatParam(
    name="blend",
    default=1.0,
    low=0.0,
    high=4.0,
    search_low=0.0,
    search_high=1.5,
    searched=False,
    scope="recipe",
    about="factor on the change; of no effect under a radius",
)
RHO = FloatParam(
    name="rho",
    default=0.01,
    low=0.0,
    high=4.0,
    search_low=0.001,
    search_high=0.3,
    log=True,
    scope="recipe",
    about="radius: norm of the change over the norm of the tensor",
)
#: The least radius that a storage dtype keeps, its spacing just above 1: below it samples lie elsewhere than they were
#: asked for, as rounding leaves many weights where they are and moves others by a whole spacing.
LEAST_RADIUS: dict[str, float] = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 0.0}
_SAMPLER = (STRENGTH, TAU, ETA, GUIDANCE, STEPS)
#: Values that an arm without an effect from them has in the resolved form.
_PLAIN: dict[str, Any] = {spec.name: spec.default for spec in (*_SAMPLER, BLEND)} | {"coefficients": ()}


class ArmInfo(Noun):
    """An arm of weight generation as the catalogue knows it.

    Attributes:
        version: enters every recipe digest; raised when the arm's numbers change.
        random: draws noise, so that the seed matters.
    """

    name: str
    version: int = 1
    summary: str
    random: bool = True
    params: tuple[Annotated[FloatParam | IntParam | ChoiceParam, Field(discriminator="kind")], ...]


class SelectorInfo(Noun):
    """A kind of selector as the catalogue knows it."""

    name: str
    summary: str


ARMS = {
    info.name: info
    for info in (
        ArmInfo(
            name="diffusion",
            summary="Noise on the latent of the weights, taken back by the layer-conditional diffusion model.",
            params=(RHO, *_SAMPLER, BLEND),
        ),
        ArmInfo(
            name="matched-noise",
            summary="Gaussian noise of the same size per tensor as the diffusion's sample: what a generator must beat.",
            params=(RHO, *_SAMPLER, BLEND),
        ),
        ArmInfo(
            name="parent-average",
            summary="The way to the mean of the weights that the generator was trained on: the second rival.",
            random=False,
            params=(RHO, BLEND),
        ),
        ArmInfo(
            name="posterior", summary="Noise on the latent, decoded: the autoencoder alone.", params=(RHO, TAU, BLEND)
        ),
    )
}


class Draw(Noun):
    """One sample from a generator, around the weights that the recipe would otherwise have.

    Attributes:
        generator: digest of the generator's artifact.
        selectors: which tensors are sampled; the generator must know all of them.
        arm, mode: where the change comes from, and what it is measured from.
        seed: of the noise. It is never a searched value.
        strength, tau, eta, guidance, steps: of the sampler.
        blend: factor on the change.
        rho: radius; None leaves the change as large as it comes.
        amounts: factors on the change, for as many equal parts of the stack (tensors after it go with the last); none
            are all 1.
        coefficients: a_k: the sample is z0 + sum_k a_k (z_k - z0) over as many samples; none is the first of them.
        version: of the arm's numbers.
    """

    generator: Digest
    selectors: Selectors
    arm: Arm = "diffusion"
    mode: Mode = "anchored"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    strength: Annotated[float, Field(ge=0, le=1)] = STRENGTH.default
    tau: Annotated[float, Field(ge=0, le=8)] = TAU.default
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    guidance: Annotated[float, Field(ge=0, le=8)] = GUIDANCE.default
    steps: Annotated[int, Field(ge=1, le=1000)] = STEPS.default
    blend: Annotated[float, Field(ge=0, le=4)] = BLEND.default
    rho: Annotated[float, Field(ge=0, le=4)] | None = None
    amounts: Annotated[tuple[Annotated[float, Field(ge=0, le=4)], ...], Field(max_length=256)] = ()
    coefficients: Annotated[tuple[Annotated[float, Field(ge=-8, le=8)], ...], Field(max_length=16)] = ()
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _on_the_grid(self) -> Self:
        if self.eta not in ETA.choices:
            raise ValueError(f"eta must be 0 or 1, but got {self.eta!r}: choose one of them")
        return self

    @property
    def idle(self) -> bool:
        """Whether it changes nothing for certain: the recipe is then what it is without the draw."""
        still = self.mode == "anchored" and self.arm in ("diffusion", "matched-noise") and self.strength == 0.0
        off = bool(self.amounts) and not any(self.amounts)
        none = bool(self.coefficients) and not any(self.coefficients) and self.mode == "anchored"
        still = still or (self.mode == "anchored" and self.arm == "posterior" and self.tau == 0.0)
        return self.blend == 0.0 or self.rho == 0.0 or still or off or (none and self.arm != "parent-average")

    @property
    def canonical(self) -> Draw:
        """The same draw without values that have no effect on it, so that equal weights have one digest."""
        known = {spec.name for spec in ARMS[self.arm].params}
        noise = self.arm == "matched-noise"
        plain: dict[str, Any] = {name: value for name, value in _PLAIN.items() if name not in known}
        if self.rho is not None:
            plain |= {"blend": BLEND.default}
        if noise and self.rho is not None:
            # Its size is given, so that no sample has to be taken to know it.
            plain |= _PLAIN
        if self.arm == "parent-average" or (noise and self.rho is not None):
            plain |= {"mode": "anchored"}
        if self.arm in ("diffusion", "posterior"):
            plain.pop("coefficients", None)
        if not ARMS[self.arm].random:
            plain |= {"seed": 0}
        if all(amount == 1.0 for amount in self.amounts):
            plain |= {"amounts": ()}
        return self.evolve(**plain, selectors=tuple(sorted(self.selectors)))

    def amount(self, layer: int, depth: int) -> float:
        """The factor on the change of a layer's tensors; `layer` is -1 outside the stack."""
        if not self.amounts:
            return 1.0
        place = depth - 1 if layer < 0 else layer
        return self.amounts[min(place * len(self.amounts) // max(depth, 1), len(self.amounts) - 1)]
