"""How much memory a training takes: a small multiple of what it learns from, however many its batches are."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from core.generators import training
from core.model import Header, TensorInfo
from merging.generation.dataset import Source
from merging.generation.training import train

torch.set_num_threads(1)
ROWS, WIDTH = 1024, 256
BRIEF = {"width": 16, "blocks": 1, "autoencoder_steps": 2, "denoiser_steps": 2, "batch": 8, "chunk": 256}


def header_of(layers):
    """Layers of one matrix each, as the blocks of a model are."""
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(layers)]
    infos = tuple(TensorInfo(name=name, dtype="F32", shape=(ROWS, WIDTH)) for name in names)
    return Header(model_type="llama", config="{}", layers=layers, vocab_size=8, tensors=infos)


def source_of(seed):
    def tensor(name):
        draws = torch.Generator().manual_seed(seed * 1000 + int(name.split(".")[2]))
        return torch.empty((ROWS, WIDTH)).normal_(generator=draws)

    return Source(f"{seed}", (f"{seed}",), tensor)


def peak_of(work):
    """The most bytes that were allocated at once, as torch's profiler counts them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize(("parameterisation", "sources"), [("full", 1), ("delta", 3)])
def test_a_training_holds_a_small_multiple_of_the_values_that_it_learns_from(monkeypatch, parameterisation, sources):
    # What the memorisation report holds does not grow with the model.
    monkeypatch.setattr("merging.generation.metrics.LOOKED_AT", 1 << 16)
    layers = 12
    selectors = tuple(f"ffn:{layer}" for layer in range(layers))
    settings = training(selectors=selectors, parameterisation=parameterisation, **BRIEF)
    values = 4 * sources * layers * ROWS * WIDTH
    peak = peak_of(lambda: train(header_of(layers), [source_of(k) for k in range(sources)], settings))
    # The chunks themselves, their codes' mu and deviation, what is shown, and the means.
    assert 3.0 * values < peak < 4.5 * values
