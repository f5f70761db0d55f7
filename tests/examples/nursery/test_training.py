import random
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from examples.nursery.corpus import Lessons
from examples.nursery.tokenizer import EOS_ID, PAD_ID, train_tokenizer
from examples.nursery.training import Course, Shape, batches, new_model, reproducible, token_loss, train
from examples.nursery.world import make_world

TINY = Shape(vocabulary=320, hidden=32, layers=1, heads=2, mlp=48)
TEXTS = Lessons.of(make_world(7)).base_texts(7, 160)
TOKENIZER = train_tokenizer(TEXTS, 320)


def test_the_rate_warms_up_linearly_and_falls_linearly_to_a_twentieth():
    course = Course(steps=110, rate=2.0, warm_up=10)
    assert [course.rate_at(step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert course.rate_at(10) == pytest.approx(2.0)
    assert course.rate_at(60) == pytest.approx(2.0 * (0.05 + 0.95 * 0.5))
    assert course.rate_at(110) == pytest.approx(0.1)


def test_batches_hold_every_text_once_padded_right_and_ended():
    rows = [row for batch in batches(TOKENIZER, TEXTS, 8, random.Random(0)) for row in batch.tolist()]
    told = sorted(TOKENIZER.decode([token for token in row if token != PAD_ID]) for row in rows)
    assert told == sorted(TEXTS)
    for row in rows:
        end = row.index(EOS_ID)
        assert set(row[end + 1 :]) <= {PAD_ID}


def test_rows_of_one_batch_have_neighbouring_lengths():
    spreads = []
    for batch in batches(TOKENIZER, TEXTS[:128], 8, random.Random(0)):
        lengths = (batch != PAD_ID).sum(1)
        spreads.append((int(lengths.min()), int(lengths.max())))
    spreads.sort()
    assert all(high <= next_low for (_, high), (next_low, _) in pairwise(spreads))


def test_the_loss_of_a_padded_batch_is_the_mean_over_its_unpadded_rows():
    with reproducible(3, threads=1):
        model = new_model(TINY).eval()
    batch = next(batches(TOKENIZER, TEXTS[:16], 16, random.Random(0)))
    lost, counted = 0.0, 0
    for row in batch:
        tokens = row[row != PAD_ID][None]
        logits = model(tokens).logits[0, :-1].detach()
        lost += float(functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
        counted += tokens.shape[1] - 1
    assert float(token_loss(model, batch).detach()) == pytest.approx(lost / counted, rel=1e-5)


def test_training_twice_gives_equal_bytes_and_learns():
    course = Course(steps=20, rate=1e-2, warm_up=2, batch=8)
    weights, losses = [], []
    for _ in range(2):
        with reproducible(3, threads=1):
            model = new_model(TINY)
            rows = batches(TOKENIZER, TEXTS, 8, random.Random(0))
            before = float(token_loss(model, next(batches(TOKENIZER, TEXTS, 8, random.Random(0)))).detach())
            losses.append(train(model, course, rows))
        weights.append(model.state_dict())
    assert all(map(torch.equal, weights[0].values(), weights[1].values()))
    assert losses[0] == losses[1] < before - 1


def test_a_reproducible_block_leaves_the_callers_torch_as_it_was():
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with reproducible(3, threads=1):
        torch.rand(5)
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
