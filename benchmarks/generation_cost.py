"""What generators cost at 8 B: on paper, from the shapes of a real model, and on a GPU where there is one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.claims import Report
from benchmarks.scoring_gpu import SHAPES
from core.draws import Draw
from core.generators import Training, training
from core.model import Header, TensorInfo
from core.selectors import select
from merging.generation.autoencoder import Autoencoder
from merging.generation.chunks import count
from merging.generation.dataset import Source
from merging.generation.denoiser import Denoiser
from merging.generation.generator import Generator
from merging.generation.networks import Labels, Sizes
from merging.generation.opened import SAMPLING_BYTES
from merging.generation.sampling import sampled
from merging.generation.training import train
from merging.generation.values import numel

SIZES = SHAPES["8 B"]
#: What is trained, as people ask for it.
JOBS: Mapping[str, Training] = {
    "norms": training(),
    "last block, row norms": training("blocks"),
    "last block, all values": training("blocks", parameterisation="full"),
    "the card's layers, all values": training("explore-llama-layers"),
}
#: Estimates of seconds: operations that a card of today does in float32 with its matrix units, and what a step of so
#: small a network takes when nothing but the launches of its kernels is waited for.
RATE, LAUNCHES = 100e12, 3e-3
#: What a training's memory is counted on, and how it is trained.
SMALL = {
    "vocab_size": 64,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
COUNTED = training("blocks", parameterisation="full", autoencoder_steps=40, denoiser_steps=40, width=256, batch=64)
#: On a GPU: seconds are for these, with so many steps of either stage measured.
MEASURED = ("norms", "last block, all values")
STEPS = 100


@cache
def header(sizes: tuple[tuple[str, int], ...] = tuple(SIZES.items())) -> Header:
    """A Llama of some sizes, without weights."""
    config = LlamaConfig(**dict(sizes), dtype="bfloat16")
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    tensors = sorted((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    return Header(
        model_type="llama",
        config=json.dumps(config.to_dict(), sort_keys=True, default=str),
        layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        tensors=tuple(TensorInfo(name=name, dtype="BF16", shape=shape) for name, shape in tensors),
    )


class Paper:
    """The figures of one training.

    Args:
        settings: of the training.
        known: of the model.
    """

    def __init__(self, settings: Training, known: Header) -> None:
        shapes = known.shapes
        targets = select(shapes, known.architecture, known.layers, settings.selectors)
        self.parameters = sum(numel("full", shapes[target.name]) for target in targets)
        lengths = [numel(settings.parameterisation, shapes[target.name]) for target in targets]
        self.values = sum(lengths)
        chunk = min(settings.chunk, max(lengths))
        self.chunks = sum(count(length, chunk) for length in lengths)
        latent = chunk if settings.latent is None else min(settings.latent, chunk)
        # Full batches of one shape, tensor by tensor: the padded rows are computed, too.
        rows = min(256, max(count(length, chunk) for length in lengths))
        batches = sum(-(-count(length, chunk) // rows) for length in lengths)
        #: Values and codes (mu, deviation) of all chunks in float32, and a byte for each of which are shown.
        self.data_bytes = self.chunks * (4 * (chunk + 2 * latent) + chunk)
        kinds = len({target.kind for target in targets})
        sizes = Sizes(chunk, latent, settings.width, settings.blocks, kinds, known.layers + 1, 0.1, False)
        with torch.device("meta"):
            autoencoder, denoiser = Autoencoder(sizes), Denoiser(sizes)
        self.network_parameters = _numbers(autoencoder) + _numbers(denoiser)
        #: Weights, gradients, two moments and the average of the larger network, and the weights of the other.
        mine = sorted((_numbers(autoencoder), _numbers(denoiser)))
        self.network_bytes = 4 * (5 * mine[1] + mine[0])
        #: What a step keeps for its way back.
        kept = [_kept(network, sizes, settings.batch) for network in (autoencoder, denoiser)]
        self.training_bytes = self.data_bytes + self.network_bytes + max(kept)
        #: While a sample is taken: its networks, and what its largest tensor needs.
        self.sample_bytes = 4 * self.network_parameters + SAMPLING_BYTES * max(lengths)
        steps = settings.autoencoder_steps * _products(autoencoder) + settings.denoiser_steps * _products(denoiser)
        #: A multiplication and an addition forward, twice that backward.
        self.training_flops = 6.0 * settings.batch * steps
        self.training_seconds = max(self.training_flops / RATE, LAUNCHES * settings.steps)
        each = _products(autoencoder) + 25 * _products(denoiser)
        self.sample_flops = 2.0 * batches * rows * each
        # Forward alone is a third of a step's launches.
        self.sample_seconds = max(self.sample_flops / RATE, LAUNCHES / 3 * 26 * batches)


def _numbers(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _products(network: nn.Module) -> int:
    """Multiplications for one row."""
    return sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear))


def _kept(network: Autoencoder | Denoiser, sizes: Sizes, batch: int) -> int:
    """Bytes that a forward pass of one batch keeps for the way back; the network is on no device."""
    with torch.device("meta"):
        rows, one = torch.empty((batch, sizes.chunk)), torch.zeros(batch, dtype=torch.int64)
        labels = Labels(one, one, one, one, one, torch.ones((batch, 1)))
        codes = torch.empty((batch, sizes.latent))
    own = {id(parameter) for parameter in network.parameters()}
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            found[id(tensor)] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        if isinstance(network, Denoiser):
            network(codes, one, labels)
        else:
            mu, std = network.encode(rows, labels)
            network.decode(mu + std * codes, labels)
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())


def paper(report: Report) -> None:
    """Claim what follows from shapes and settings."""
    for name, settings in JOBS.items():
        found = Paper(settings, header())
        label = f"cost at 8 B: {name}"
        report.claim(f"{label}: parameters", found.parameters, "")
        report.claim(f"{label}: numbers that describe them", found.values, "")
        report.claim(f"{label}: chunks", found.chunks, "")
        report.claim(f"{label}: data and codes", found.data_bytes / 1e9, "GB")
        report.claim(f"{label}: parameters of the networks", found.network_parameters / 1e6, "M")
        report.claim(f"{label}: networks in training", found.network_bytes / 1e9, "GB")
        report.claim(f"{label}: peak memory of training", found.training_bytes / 1e9, "GB")
        report.claim(f"{label}: peak memory of a sample", found.sample_bytes / 1e9, "GB")
        report.claim(f"{label}: training", found.training_flops / 1e12, "TFLOP")
        report.claim(f"{label}: training, estimated", found.training_seconds, "s")
        report.claim(f"{label}: one sample, 25 steps", found.sample_flops / 1e12, "TFLOP")
        report.claim(f"{label}: one sample, estimated", found.sample_seconds, "s")
        report.claim(f"{label}: a kept sample in bfloat16", 2 * found.parameters / 1e6, "MB")
    _checked(report)
    report.note(
        f"cost at 8 B: seconds are for {RATE / 1e12:g} TFLOP/s, and at least {1000 * LAUNCHES:g} ms a step, a third "
        "of it a forward pass; estimated from shapes, not measured"
    )


def _checked(report: Report) -> None:
    """Claim that a training takes the memory that it has on paper, where that can be counted."""
    known, settings = header(tuple(SMALL.items())), COUNTED
    on_paper = Paper(settings, known).training_bytes
    counted = peak_of(lambda: measured(settings, known, torch.device("cpu"), settings.autoencoder_steps))
    name = "cost: peak memory of a training, counted, over that on paper: a block of 3.1 million parameters"
    report.claim(name, counted / on_paper, "", 1.25, "lower")


def peak_of(work: Callable[[], object]) -> int:
    """The most bytes that were allocated on the host at once, as torch's profiler counts them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = most = 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def on_gpu(report: Report) -> None:
    """Claim what training and sampling really take at 8 B, or list it where there is no GPU."""
    for name in MEASURED:
        told = [f"GPU at 8 B: {name}: {what}" for what in ("training", "one sample", "peak memory")]
        if not torch.cuda.is_available():
            for figure in told:
                report.skip(figure, None, "there is no GPU on this machine")
            continue
        figures = measured(JOBS[name], header(), torch.device("cuda"), STEPS)
        for figure, value, unit in zip(told, figures, ("s", "s", "GiB"), strict=True):
            report.claim(figure, value, unit)
        report.note(f"GPU at 8 B: {name}: {STEPS} steps of either stage were taken, and seconds reckoned up to all")


def measured(settings: Training, known: Header, device: torch.device, steps: int) -> tuple[float, float, float]:
    """Seconds of a training, reckoned from so many steps of either stage; seconds of a sample; peak GiB.

    Weights are random, and made as they are asked for.
    """
    shapes, stamps = known.shapes, {}
    source = Source("0" * 64, ("0" * 64,), lambda name: _weight(shapes[name], device))
    few = settings.evolve(autoencoder_steps=steps, denoiser_steps=steps)
    generator = train(
        known, [source], few, device=device, progress=lambda done, *_: stamps.update({done: _now(device)})
    )
    # The first twenty steps of either stage warm up.
    first, second = (
        (stamps[end] - stamps[begin]) / (end - begin) for begin, end in ((20, steps), (steps + 20, 2 * steps))
    )
    seconds = settings.autoencoder_steps * first + settings.denoiser_steps * second
    draw = Draw(generator="0" * 64, selectors=settings.selectors, rho=0.01)
    sample = _timed(lambda: _sample(generator, shapes, device, draw), device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return seconds, sample, peak / 2**30


def _weight(shape: tuple[int, ...], device: torch.device) -> Tensor:
    draws = torch.Generator(device).manual_seed(shape[0])
    return torch.empty(shape, device=device).normal_(1.0, 0.1, generator=draws)


def _sample(generator: Generator, shapes: Mapping[str, tuple[int, ...]], device: torch.device, draw: Draw) -> None:
    for name in sorted(generator.entries):
        sampled(generator, _weight(shapes[name], device), name, draw)


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds, the second time."""
    work()
    begun = _now(device)
    work()
    return _now(device) - begun


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
