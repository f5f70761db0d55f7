import pytest
import torch

from evaluation import budget
from evaluation.budget import affordable_tokens
from evaluation.likelihood import LikelihoodReader
from evaluation.scorer import never
from evaluation.trees import TokenRequest, grow

CUDA = torch.device("cuda")
#: Logits of the model's float32, their float32 and their exponentials.
HEAD = budget.LOGITS * 12


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with so many bytes free, and so many kept by the allocator though nothing uses them."""

    def pretend(free, kept=0):
        asked = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(device) or (free, 1 << 40))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5000 + kept)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5000)
        return asked

    return pretend


def test_a_cpu_gets_what_was_measured_best(make_architecture):
    assert affordable_tokens(make_architecture("llama"), torch.device("cpu"), 10) == 1024


def test_a_gpu_gets_what_fits_into_its_free_memory(gpu, make_architecture):
    model = make_architecture("llama")
    # Four residual streams of 32, eight attention streams of 32, a mask and its bias over 100 nodes; four bytes each.
    token = (4 * 32 + 8 * 32 + 2 * 100) * 4
    gpu(free=int((HEAD + 5000 * token) / 0.7) + 100)
    assert affordable_tokens(model, CUDA, 100) == 5000
    gpu(free=int(HEAD / 0.7), kept=int(5000 * token / 0.7) + 100)
    assert affordable_tokens(model, CUDA, 100) == 5000


def test_a_gpu_gets_no_more_than_it_needs_and_always_one_row(gpu, make_architecture):
    gpu(free=1 << 38)
    assert affordable_tokens(make_architecture("gpt2"), CUDA, 100) == 16384
    gpu(free=1 << 20)
    assert affordable_tokens(make_architecture("gpt2"), CUDA, 100) == 1


def test_eager_attention_and_whole_logits_cost_more(gpu, make_architecture):
    gpu(free=int(HEAD * 1.45))
    plain = affordable_tokens(make_architecture("gemma3"), CUDA, 400)
    assert affordable_tokens(make_architecture("gemma3-eager"), CUDA, 400) < plain / 3
    known = affordable_tokens(make_architecture("llama"), CUDA, 10)
    assert affordable_tokens(make_architecture("granite"), CUDA, 10) == pytest.approx(known * 404 / 724, abs=2)


def test_a_reader_asks_for_the_free_memory_once(monkeypatch, model):
    asked = []
    monkeypatch.setattr(
        "evaluation.likelihood.affordable_tokens", lambda model, device, longest: asked.append(longest) or 77
    )
    reader = LikelihoodReader(torch.device("cpu"))
    trees = [grow([TokenRequest(torch.arange(9).int().numpy(), torch.tensor([1]).int().numpy())])]
    for _ in range(2):
        reader.read(model, trees, cancelled=never)
    assert (reader.batch_tokens, asked) == (77, [9])
