import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from core.errors import NonFiniteWeightsError
from core.outcomes import Outcomes
from evaluation.answers import AnswerRule
from evaluation.gradient import Lesson, differentiate, smoothed
from evaluation.likelihood import LikelihoodReader
from evaluation.prepare import Document
from evaluation.trees import TokenRequest, grow

torch.set_num_threads(1)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.3)).double().eval()


def request(context, continuation):
    read = np.array([*context, *continuation][:-1], np.int32)
    return TokenRequest(read, np.array(continuation, np.int32))


def document(context, continuations, right, lengths):
    tree = grow([request(context, each) for each in continuations])
    return Document(tree, AnswerRule(right, np.array(lengths, dtype=np.float64)))


#: Of unequal lengths, with a shared beginning, with two right choices, and with contexts that differ (Winogrande's way).
DOCUMENTS = (
    document([5, 9, 33], [[2, 17], [40], [2, 21, 8]], (1,), [6.0, 3.0, 9.0]),
    document([7, 3, 3, 50, 61], [[12], [30], [1], [4]], (0, 2), [1.0, 1.0, 1.0, 1.0]),
    Document(grow([request([11, 20], [8, 9]), request([11, 25, 6], [8, 9])]), AnswerRule((1,), np.ones(2))),
)
LESSONS = [Lesson(each, weight) for each, weight in zip(DOCUMENTS, (0.5, 0.3, 0.2), strict=True)]


def expected(model, temperature=1.0):
    """The loss from log-likelihoods that the scoring engine reads, by hand."""
    answers = LikelihoodReader(torch.device("cpu"), 64).read(
        model, [each.tree for each in DOCUMENTS], cancelled=lambda: False
    )
    total = 0.0
    for lesson, answer in zip(LESSONS, answers, strict=True):
        lengths = lesson.document.rule.lengths
        scores = answer.sums / lengths * lengths.mean() / temperature
        chances = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        total -= lesson.weight * math.log(chances[list(lesson.document.rule.right)].sum())
    return total


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_the_cross_entropy_of_the_choices_as_the_scorer_reads_them(model, temperature):
    lessons = [lesson._replace(temperature=temperature) for lesson in LESSONS]
    assert differentiate_free(model, lessons) == pytest.approx(expected(model, temperature), abs=1e-5)


def differentiate_free(model, lessons=LESSONS, **options):
    model.requires_grad_(True)
    try:
        return differentiate(model, lessons, **options)
    finally:
        model.requires_grad_(False)
        model.zero_grad(set_to_none=True)


def gradients(model, **options):
    model.requires_grad_(True)
    loss = differentiate(model, LESSONS, **options)
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    return loss, found


def test_the_gradient_is_that_of_the_loss(model):
    """Along a random direction, from the loss on both sides; norms are taken in float32 whatever the model's dtype."""
    _, found = gradients(model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        way = {name: torch.randn_like(gradient) for name, gradient in found.items()}
    slope = sum(float((way[name] * found[name]).sum()) for name in found)
    losses = []
    for step in (1e-4, -2e-4):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += step * way[name]
        losses.append(differentiate_free(model))
    assert slope == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=2e-3)


@pytest.mark.parametrize("options", [{"recompute": True}, {"batch_tokens": 1}, {"batch_tokens": 9, "recompute": True}])
def test_neither_recomputing_nor_small_passes_change_anything(model, options):
    loss, found = gradients(model, recompute=False)
    other, others = gradients(model, **options)
    assert other == pytest.approx(loss, rel=1e-12)
    for name, gradient in found.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-9, atol=1e-12)


def test_layers_remember_again_afterwards(model):
    differentiate_free(model, recompute=True)
    assert all("forward" not in vars(layer) for layer in model.model.layers)


def test_many_logits_are_taken_some_at_a_time(model, monkeypatch):
    loss, found = gradients(model)
    monkeypatch.setattr("evaluation.gradient.LOGITS", 2 * 64)
    other, others = gradients(model)
    assert other == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(others["lm_head.weight"], found["lm_head.weight"], rtol=1e-9, atol=1e-12)


def test_an_architecture_that_takes_no_tries_is_read_row_by_row():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = AutoConfig.for_model("opt", vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
                                      num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32)  # fmt: skip
        other = AutoModelForCausalLM.from_config(config).eval()
    loss, found = gradients(other)
    assert loss == pytest.approx(expected(other), abs=1e-4)
    assert float(found["model.decoder.embed_tokens.weight"].abs().sum()) > 0


def test_a_loss_that_is_not_finite_is_refused(model):
    with torch.no_grad():
        model.lm_head.weight[3] = math.inf
    with pytest.raises(NonFiniteWeightsError):
        differentiate_free(model)


def test_smoothed_accuracy_moves_with_margins_and_agrees_with_settled_ones():
    assert smoothed(Outcomes.of([(0, 1, 5.0), (1, 1, 5.0), (2, 0, -5.0), (3, 1, 5.0)])) == pytest.approx(0.75, abs=1e-4)
    # Median |margin| 1, so h is 1/4: Phi(.4), Phi(4), Phi(-8).
    found = smoothed(Outcomes.of([(0, 1, 0.1), (1, 1, 1.0), (2, 0, -2.0)]))
    assert found == pytest.approx((0.655422 + 0.999968 + 0.0) / 3, abs=1e-5)
    assert smoothed(Outcomes.empty()) == 0.0
    assert smoothed(Outcomes.of([(0, 1, 0.0)])) == 0.5


def test_a_document_whose_gold_names_no_choice_neither_adds_nor_pulls(model):
    wrong = Lesson(Document(DOCUMENTS[0].tree, AnswerRule((), np.ones(3))), 0.7)
    model.requires_grad_(True)
    found = []
    for lessons in (LESSONS, [*LESSONS, wrong], [wrong]):
        loss = differentiate(model, lessons)
        found.append((loss, torch.cat([each.grad.flatten() for each in model.parameters()])))
        model.zero_grad(set_to_none=True)
    assert found[0][0] == pytest.approx(found[1][0]) and found[2][0] == 0.0
    torch.testing.assert_close(found[0][1], found[1][1])
    assert found[0][1].any() and not found[2][1].any()
