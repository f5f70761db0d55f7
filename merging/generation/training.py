"""Training a generator: an autoencoder of chunks, then a diffusion over its codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from core.generators import Training
from core.model import Header
from core.noun import digest_of
from merging.generation.autoencoder import Autoencoder, loss_of
from merging.generation.config import GeneratorConfig
from merging.generation.dataset import Dataset, Source, batches, dataset_of
from merging.generation.denoiser import Denoiser
from merging.generation.fitting import Fit, Loss
from merging.generation.generator import Generator
from merging.generation.metrics import measure
from merging.generation.networks import Labels, begin
from merging.generation.progress import Checkpoint, Progress, Watch
from merging.generation.schedules import SCHEDULE, for_training
from merging.lanes import single_threaded
from merging.reductions import ordered_sum

#: Libraries whose versions may change a generator's numbers.
LIBRARIES = ("torch", "diffusers", "safetensors")
#: From so many chunks on, every so-manieth is never trained on, and tells how well others are rebuilt.
MANY, HELD = 64, 32
#: Steps between two reports, and between two states on disk.
REPORT_EVERY, SAVE_EVERY = 20, 200
#: Multiplications of one layer for one batch, up to which a second core costs more than it brings: cores meet after
#: every operation, and wait for whichever is busy with something else.
SMALL = 1 << 24
#: Noise of a code, as a share of how far sources are apart: with a quarter, a tenth of their difference is lost.
HEARD = 0.25
#: The least factor on noise: sources nearer than that are one.
QUIETEST = 0.01
#: Share of examples whose source is held back where there are several, at least: samples name none.
UNNAMED = 0.1
#: The stages, in order.
AUTOENCODER, DENOISER = "autoencoder", "denoiser"


def train(
    header: Header,
    sources: Sequence[Source],
    settings: Training,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    save_every: int = SAVE_EVERY,
    progress: Progress | None = None,
) -> Generator:
    """A generator of the sources' selected tensors.

    Args:
        header: of the base.
        sources: what to learn from, the base first.
        settings: how.
        device: where.
        checkpoint: a file that keeps the state; a training that finds one of its own goes on from there, and gives the
            generator that it would have given without the interruption.
        save_every: steps between two states on disk.
        progress: told the state of affairs every `REPORT_EVERY` steps; what it raises stops the training, once its
            state is saved.

    Raises:
        SelectorError: a selector that finds nothing.
        InvalidInputError: sources that nothing can be learned from.
        NonFiniteCheckpointError: a source with NaN or infinity in what is selected.
        TrainingDivergedError: a loss that is no finite number, noticed at the next report.
    """
    device = torch.device(device)
    small = device.type == "cpu" and settings.batch * settings.width**2 <= SMALL
    with single_threaded() if small else nullcontext():
        return _trained(header, sources, settings, device, checkpoint, save_every, progress)


def _trained(
    header: Header,
    sources: Sequence[Source],
    settings: Training,
    device: torch.device,
    checkpoint: Path | None,
    save_every: int,
    progress: Progress | None,
) -> Generator:
    data = dataset_of(header, sources, settings, device)
    config = _config(header, sources, settings, data)
    settings = settings.evolve(augment=settings.augment * config.quiet)
    kept = Checkpoint(checkpoint, digest_of([config.model_dump(mode="json"), device.type]))
    run = _Run(settings, data, config, kept, Watch(progress, settings.steps, REPORT_EVERY), save_every)
    autoencoder, denoiser, std = run.go(device)
    config = config.evolve(code_std=std)
    generator = Generator(config, autoencoder, denoiser, data.frozen, data.reference)
    return generator.evolve(metrics=measure(generator, data, rest_of(data)), codes=_codes(autoencoder, data))


def trained_on(data: Dataset) -> Tensor:
    """Positions among all sources' chunks that training sees: int64."""
    total = data.chunks.shape[0] * data.chunks.shape[1]
    places = torch.arange(total, device=data.chunks.device)
    return places if data.chunks.shape[1] < MANY else places[places % data.chunks.shape[1] % HELD != HELD - 1]


def rest_of(data: Dataset) -> Tensor:
    """Positions among one source's chunks that training never sees: int64, none where there are few."""
    places = torch.arange(data.chunks.shape[1], device=data.chunks.device)
    return places[:0] if data.chunks.shape[1] < MANY else places[places % HELD == HELD - 1]


def quietness(data: Dataset, settings: Training) -> float:
    """The factor on noise under which sources can be told apart; 1 where there is one, or where their noise is fixed.

    An autoencoder that cannot hear what sources differ by, for all the noise, learns to give their mean.

    Args:
        data: of the training.
        settings: say how much noise there is otherwise.
    """
    apart = data.apart
    if not apart or settings.fixed_std or apart[len(apart) // 2] == 0.0:
        return 1.0
    return min(1.0, max(QUIETEST, HEARD * apart[len(apart) // 2] / settings.posterior_std))


class _Run:
    """One training: both stages over one dataset."""

    def __init__(
        self,
        settings: Training,
        data: Dataset,
        config: GeneratorConfig,
        kept: Checkpoint,
        watch: Watch,
        save_every: int,
    ) -> None:
        self._settings, self._data, self._config = settings, data, config
        self._kept, self._watch, self._save_every = kept, watch, save_every
        self._flat = data.chunks.reshape(-1, data.chunk)
        self._seen = trained_on(data)

    def go(self, device: torch.device) -> tuple[Autoencoder, Denoiser, float]:
        settings, sizes, saved = self._settings, self._config.sizes, self._kept.load()
        first = self._fit(_begun(Autoencoder(sizes), settings.seed, device), AUTOENCODER, settings.autoencoder_steps)
        autoencoder = first.network
        assert isinstance(autoencoder, Autoencoder)
        if saved is not None and saved.stage == DENOISER:
            finished = {name.removeprefix("autoencoder/"): t for name, t in saved.tensors.items()}
            autoencoder.load_state_dict({name: finished[name] for name in autoencoder.state_dict()})
            autoencoder.requires_grad_(False).eval()
        else:
            if saved is not None:
                first.restore(saved.tensors, saved.done)
            self._train(first, self._rebuilding(autoencoder), 0, {})
            first.finish()
        mu, std, scale = self._encoded(autoencoder)
        second = self._fit(_begun(Denoiser(sizes), settings.seed + 1, device), DENOISER, settings.denoiser_steps)
        denoiser = second.network
        assert isinstance(denoiser, Denoiser)
        if saved is not None and saved.stage == DENOISER:
            second.restore(saved.tensors, saved.done)
        finished = {f"autoencoder/{name}": tensor.cpu() for name, tensor in autoencoder.state_dict().items()}
        loss = self._denoising(denoiser, mu, std, scale)
        self._train(second, loss, settings.autoencoder_steps, finished)
        second.finish()
        return autoencoder, denoiser, scale

    def _fit(self, network: nn.Module, stage: str, steps: int) -> Fit:
        settings = self._settings
        return Fit(network, steps=steps, rate=settings.rate, ema=settings.ema, seed=settings.seed, stage=stage)

    def _train(self, fit: Fit, loss: Loss, before: int, beside: dict[str, Tensor]) -> None:
        """Steps until the stage is done; whatever stops it finds its state saved."""
        try:
            while fit.done < fit.steps:
                found = fit.step(loss)
                if fit.done % self._save_every == 0:
                    self._kept.save(fit.stage, fit.done, {**fit.state(), **beside})
                self._watch.tell(before + fit.done, found)
        except BaseException:
            self._kept.save(fit.stage, fit.done, {**fit.state(), **beside})
            raise

    def _rebuilding(self, network: Autoencoder) -> Loss:
        def loss(draws: torch.Generator) -> Tensor:
            rows, labels, shown = self._batch(draws)
            chunks = self._flat[rows]
            noise = _normal(chunks.shape, draws), _normal((len(rows), self._config.latent), draws)
            return loss_of(network, chunks, shown, labels, noise, self._settings)

        return loss

    def _denoising(self, network: Denoiser, mu: Tensor, std: Tensor, scale: float) -> Loss:
        schedule = for_training()
        last = int(SCHEDULE["num_train_timesteps"])

        def loss(draws: torch.Generator) -> Tensor:
            rows, labels, shown = self._batch(draws)
            clean = (mu[rows] + std[rows] * _normal((len(rows), mu.shape[1]), draws)) / scale
            noise = _normal(clean.shape, draws)
            times = torch.empty(len(rows), dtype=torch.int64, device=clean.device).random_(0, last, generator=draws)
            noisy = schedule.add_noise(clean, noise, times)
            error: Tensor = (network(noisy, times, labels) - schedule.get_velocity(clean, noise, times)).square()
            counted = shown if self._config.sizes.lossless else torch.ones_like(error)
            return (error * counted).sum() / counted.sum()

        return loss

    def _batch(self, draws: torch.Generator) -> tuple[Tensor, Labels, Tensor]:
        """Rows among all sources' chunks, their labels with some held back, and what they show."""
        device, share = self._flat.device, self._settings.drop
        unnamed = max(share, UNNAMED)
        picked = torch.empty(self._settings.batch, dtype=torch.int64, device=device)
        rows = self._seen[picked.random_(0, len(self._seen), generator=draws)]
        labels = self._data.labels.take(rows)
        drawn = torch.empty((3, len(rows)), device=device).uniform_(generator=draws)
        hold = drawn >= share
        labels = Labels(
            kind=labels.kind,
            layer=labels.layer,
            number=labels.number,
            source=labels.source * (drawn[0] >= unnamed),
            decile=labels.decile * hold[1],
            told=labels.told * hold[2].unsqueeze(-1),
        )
        return rows, labels, self._data.shown[rows % self._data.chunks.shape[1]].float()

    @torch.no_grad()
    def _encoded(self, network: Autoencoder) -> tuple[Tensor, Tensor, float]:
        """mu and standard deviation of every chunk's code, and the spread of codes drawn from them."""
        mu, std = encoded(network, self._flat, self._data.labels, self._config.rows)
        return mu, std, max(math.sqrt(self._moment(mu, std)), 1e-6)

    def _moment(self, mu: Tensor, std: Tensor) -> float:
        """The mean square of codes that are drawn, over what chunks show where the code loses nothing."""
        own = self._data.chunks.shape[1]
        shown = self._data.shown.view(-1) if self._config.sizes.lossless else None

        def total(first: int) -> float:
            one, other = (found[first : first + own].view(-1) for found in (mu, std))

            def terms(start: int, stop: int) -> Tensor:
                square = one[start:stop].double().square() + other[start:stop].double().square()
                return square if shown is None else square * shown[start:stop]

            return ordered_sum(one.numel(), terms)

        counted = mu.numel() if shown is None else int(shown.count_nonzero()) * (len(mu) // own)
        return sum(total(first) for first in range(0, len(mu), own)) / counted


def _begun(network: nn.Module, seed: int, device: torch.device) -> nn.Module:
    begin(network, seed)
    return network.to(device)


def _normal(shape: Sequence[int], draws: torch.Generator) -> Tensor:
    return torch.empty(tuple(shape), device=draws.device).normal_(generator=draws)


@torch.no_grad()
def encoded(network: Autoencoder, chunks: Tensor, labels: Labels, rows: int) -> tuple[Tensor, Tensor]:
    """mu and standard deviation of the first chunks' codes, so many rows at a time: (n, latent) twice."""
    mu, std = (torch.empty((len(chunks), network.sizes.latent), device=chunks.device) for _ in range(2))
    for place in batches(len(chunks), rows, chunks.device):
        mu[place], std[place] = network.encode(chunks[place], labels.take(place))
    return mu, std


@torch.no_grad()
def _codes(network: Autoencoder, data: Dataset) -> dict[str, Tensor]:
    """mu and log variance of the base's chunks, as the artifact keeps them."""
    mu, std = encoded(network, data.chunks[0], data.labels, data.rows)
    return {"mu": mu.cpu(), "log_variance": std.log_().mul_(2.0).cpu()}


def _config(header: Header, sources: Sequence[Source], settings: Training, data: Dataset) -> GeneratorConfig:
    lineage = {digest: None for source in sources for digest in source.lineage}
    return GeneratorConfig(
        model_type=header.model_type,
        layers=header.layers,
        base=sources[0].digest,
        sources=tuple(source.digest for source in sources),
        lineage=tuple(lineage),
        scored=any(source.score is not None for source in sources),
        settings=settings,
        kinds=data.kinds,
        tensors=data.entries,
        chunk=data.chunk,
        latent=data.chunk if settings.latent is None else min(settings.latent, data.chunk),
        rows=data.rows,
        quiet=quietness(data, settings),
        versions={name: version(name) for name in LIBRARIES},
    )
