"""One network's training: AdamW along a cosine, an average of the weights, and a state that can be put down.

All randomness of a step is drawn from a seed of its own, so a training that was interrupted gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from merging.randomness import mask_key

#: Steps over which the rate rises.
WARM_UP = 20
CLIP = 1.0

#: The loss of one step, drawn with the generator it is handed.
Loss = Callable[[torch.Generator], Tensor]


class Fit:
    """A network on its way.

    Args:
        network: what is trained, in place.
        steps: in all.
        rate: the highest.
        ema: decay of the average, once warm.
        seed: of all its steps.
        stage: tells the stages of one training apart.
    """

    def __init__(self, network: nn.Module, *, steps: int, rate: float, ema: float, seed: int, stage: str) -> None:
        self.network, self.steps, self.stage = network, steps, stage
        self._rate, self._ema, self._seed = rate, ema, seed
        self._names = [name for name, _ in network.named_parameters()]
        self._weights = [weight for _, weight in network.named_parameters()]
        self._average = [weight.detach().clone() for weight in self._weights]
        # Networks this small are slowed down by the number of operations, so on the host each is one over all weights.
        host = self._weights[0].device.type == "cpu"
        self._optimiser = torch.optim.AdamW(self._weights, lr=rate, weight_decay=0.0, fused=host or None)
        self.done = 0
        draws = torch.Generator(self._weights[0].device)
        self._draws = draws

    def step(self, loss: Loss) -> Tensor:
        """One step; returns its loss, which is not waited for."""
        key = mask_key(self._seed, self.stage, str(self.done))
        self._draws.manual_seed(key.index << 31 | key.state >> 1)
        self._optimiser.param_groups[0]["lr"] = self._rate_now()
        self._optimiser.zero_grad(set_to_none=True)
        with torch.enable_grad():
            found = loss(self._draws)
            found.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, CLIP, foreach=True)
        self._optimiser.step()
        self.done += 1
        decay = min(self._ema, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [weight.detach() for weight in self._weights], 1.0 - decay)
        return found.detach()

    @torch.no_grad()
    def finish(self) -> None:
        """The network takes its average."""
        for weight, average in zip(self._weights, self._average, strict=True):
            weight.copy_(average)
            weight.requires_grad_(False)
        self.network.eval()

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        found = {}
        for name, weight, average in zip(self._names, self._weights, self._average, strict=True):
            own = self._optimiser.state.get(weight, {})
            parts = {"weight": weight.detach(), "average": average, **{key: own[key] for key in sorted(own)}}
            found.update({f"{part}/{name}": tensor.detach().cpu() for part, tensor in parts.items()})
        return found

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor], done: int) -> None:
        """Go on from a `state` taken after so many steps."""
        for name, weight, average in zip(self._names, self._weights, self._average, strict=True):
            weight.copy_(state[f"weight/{name}"])
            average.copy_(state[f"average/{name}"])
            self._optimiser.state[weight] = dict(_optimiser_state(state, name, weight))
        self.done = done

    def _rate_now(self) -> float:
        warm = min(1.0, (self.done + 1) / WARM_UP)
        return self._rate * warm * 0.5 * (1.0 + math.cos(math.pi * self.done / self.steps))


def _optimiser_state(state: dict[str, Tensor], name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    for part in ("step", "exp_avg", "exp_avg_sq"):
        found = state.get(f"{part}/{name}")
        if found is not None:
            # The count of steps stays on the host, where AdamW keeps it.
            yield part, found.clone() if part == "step" else found.to(weight.device, copy=True)
