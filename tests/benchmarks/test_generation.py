"""The figures of generated weights, on cases that can be worked out by hand; nothing is trained on a nursery here."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import generation_cost, generation_mixed, generation_samples, generation_selection
from benchmarks.claims import Report
from benchmarks.generation_cost import JOBS, Paper, header, measured, on_gpu, peak_of
from benchmarks.generation_exact import _changed_by_packing, distance
from benchmarks.generation_mixed import MERGE, MERGES, SAMPLED, Continued, Margins, Opening, Place
from benchmarks.generation_rivals import _mixed, _normal, interval
from benchmarks.generation_samples import POOLS, RADII, Pool, collect, complete
from benchmarks.generation_selection import Choice, replay
from benchmarks.generation_setting import loss_of
from core.generators import training

torch.set_num_threads(1)
TINY = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def claims_of(report):
    return {claim.name: claim.value for claim in report.claims}


def test_an_interval_is_student_s():
    # Mean 2, deviation 1, three numbers: 4.303 * 1 / sqrt(3).
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 2.4841, 2 + 2.4841), abs=1e-4)


def test_distances_count_all_tensors_together():
    one = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0])}
    assert distance(one) == 3.0
    assert distance(one, {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([4.0])}) == 5.0


def test_packing_is_tried_on_every_dtype_and_on_padded_ends():
    assert _changed_by_packing() == 0


def test_a_loss_counts_every_token_but_the_padding_once():
    model = LlamaForCausalLM(LlamaConfig(**TINY, pad_token_id=0)).eval()
    rows = (torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]]), torch.tensor([[11, 12, 13]]))
    told = []
    for text in ([5, 6, 7, 8], [9, 10], [11, 12, 13]):
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, :-1].log_softmax(-1)
        told += [-float(logits[place, token]) for place, token in enumerate(text[1:])]
    assert loss_of(model, rows) == pytest.approx(sum(told) / 6, rel=1e-5)


def test_a_mean_of_parents_is_weighted_and_normal_values_have_their_mean_and_deviation():
    values = {"x": {"w": torch.tensor([0.0, 2.0])}, "y": {"w": torch.tensor([2.0, 2.0])}}
    assert _mixed(values, np.array([0.25, 0.75]))["w"].tolist() == [1.5, 2.0]
    drawn = torch.stack([_normal(values, {"w": torch.tensor([1.0, 2.0])}, seed)["w"] for seed in range(400)])
    assert drawn.mean(0).tolist() == pytest.approx([1.0, 2.0], abs=0.25)
    assert drawn.std(0).tolist() == pytest.approx([math.sqrt(2.0), 0.0], abs=0.15)


def pool(rng, better=0.0, moved=0.1):
    """24 candidates that answer some items otherwise than the base; one of them is right on some more."""

    def side(items):
        base = rng.random((1, 3, items)) < 0.5
        found = np.repeat(base, 25, axis=0)
        found[1:] ^= rng.random((24, 3, items)) < moved
        found[5] |= rng.random((3, items)) < better
        return found

    return Pool(side(200), side(400), np.array([RADII[k % 3] for k in range(24)]))


def test_candidates_that_answer_alike_are_never_promoted():
    rng = np.random.default_rng(0)
    found = [replay(pool(rng, moved=0.0), rng, null=null) for null in (False, True) for _ in range(20)]
    assert {choice.verdict for choice in found} == {"no gain"}
    assert {choice.seen for choice in found} == {0.0}


def test_a_candidate_that_is_better_is_promoted_and_its_gain_is_no_false_one():
    rng = np.random.default_rng(1)
    good = pool(rng, better=0.4)
    found = [replay(good, rng, null=False) for _ in range(30)]
    promoted = [choice for choice in found if choice.verdict == "gain"]
    assert len(promoted) > 15
    assert all(choice.true > 10 for choice in promoted)


def test_under_the_null_choosing_gains_on_what_it_sees_and_nothing_elsewhere():
    rng = np.random.default_rng(2)
    good = pool(rng, better=0.4)
    found = [replay(good, rng, null=True) for _ in range(300)]
    assert np.mean([choice.seen for choice in found]) > 2.0
    assert abs(np.mean([choice.held_out for choice in found])) < 0.5
    assert np.mean([choice.verdict == "gain" for choice in found]) < 0.06


def test_every_pool_is_told_with_its_promotions_and_the_bound(monkeypatch):
    pools = {name: pool(np.random.default_rng(3)) for name in POOLS}
    monkeypatch.setattr(generation_selection, "REPLAYS", 40)
    monkeypatch.setattr(generation_selection, "again", lambda *arguments: None)
    monkeypatch.setattr(Pool, "load", classmethod(lambda cls, name: pools[name]))
    monkeypatch.setattr(generation_selection, "complete", lambda: list(POOLS)[:3])
    report = Report(quick=True)
    generation_selection.best_of(report, None)
    told = claims_of(report)
    assert told["10: least gain of the best on search items, the base among the candidates"] >= 0.0
    # No hits in 40: 1 - 0.05^(1/40).
    assert told["12: null, promotions, upper 95 % bound"] >= 0.0721
    assert all(f"11: {name}: its true gain on held-out items" in told for name in POOLS[:3])
    assert [entry["name"] for entry in report.not_run] == [f"11: {POOLS[3]}: its true gain on held-out items"]


def test_a_promotion_can_be_false_only_where_another_one_is_chosen_that_is_no_better():
    found = [Choice("gain", 2.0, 1.0, true, itself) for true, itself in ((0.0, False), (-1.0, False), (0.0, True))]
    found += [Choice("no gain", 2.0, 1.0, true) for true in (-1.0, 3.0)]
    assert [choice.endangered for choice in found] == [True, True, False, True, False]
    report = Report(quick=True)
    generation_selection._conditional(report, "11", "it is no better", found)
    told = claims_of(report)
    assert told["11: replays in which it is no better"] == pytest.approx(3 / 5)
    assert told["11: false promotions among these"] == pytest.approx(2 / 3)


def test_answers_of_samples_from_another_generator_are_forgotten_and_scoring_goes_on_where_it_stopped(
    tmp_path, monkeypatch
):
    asked, generators = [], {"digest": "one"}
    answers = {"search": np.ones((3, 2), bool), "heldout": np.zeros((3, 4), bool)}
    monkeypatch.setattr(generation_samples, "drawn_from", lambda setting, name: generators["digest"])
    monkeypatch.setattr(
        generation_samples, "recipes", lambda setting, name, digest: [f"{digest} {k}" for k in range(3)]
    )
    monkeypatch.setattr(generation_samples, "scored", lambda setting, recipe: asked.append(recipe) or answers)
    file = tmp_path / "samples.npz"
    assert collect(None, [POOLS[0]], 1e9, file)
    assert collect(None, [POOLS[0]], 1e9, file)
    assert asked == ["one 0", "one 1", "one 2"]
    generators["digest"] = "two"
    assert collect(None, [POOLS[0]], 1e9, file)
    assert asked[3:] == ["two 0", "two 1", "two 2"]
    kept = Pool.load(POOLS[0], file)
    assert (kept.generator, kept.search.shape, kept.held_out.shape) == ("two", (3, 3, 2), (3, 3, 4))


def test_a_pool_is_complete_with_all_its_candidates_on_both_sides(tmp_path):
    kept = {f"{POOLS[0]} {side}": np.zeros((25, 3, 2), bool) for side in ("search", "heldout")}
    np.savez(tmp_path / "samples.npz", **kept, **{f"{POOLS[1]} search": np.zeros((25, 3, 2), bool)})
    assert complete(tmp_path / "samples.npz") == [POOLS[0]]


def test_the_cost_on_paper_has_the_parameters_of_an_eight_billion_llama():
    # 65 norms of 4096; a block of 16.78 + 4.19 + 4.19 + 16.78 + 3 * 58.72 million and its two norms.
    found = {name: Paper(settings, header()) for name, settings in JOBS.items()}
    assert found["norms"].parameters == found["norms"].values == 266_240
    assert found["norms"].chunks == 260
    block = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert found["last block, all values"].parameters == block == 218_112_000
    assert found["last block, all values"].chunks == block // 1024
    assert found["last block, row norms"].values == 3 * 4096 + 2 * 1024 + 2 * 14336 + 2 * 4096 - 4096 + 4096
    assert found["the card's layers, all values"].parameters == block + 2 * 3 * 4096 * 14336


def test_operations_on_paper_are_those_of_the_matrices():
    known = header(tuple(TINY.items()))
    settings = training(width=8, blocks=1, autoencoder_steps=3, denoiser_steps=5, batch=7)
    found = Paper(settings, known)
    # Width 8, chunks and codes of 16. Autoencoder: in, mu, variance, leave, back 16 * 8 each; four FiLM blocks of
    # 8 * 16 + 2 * 64. Denoiser: place and time 64 each of three, in and out 16 * 8, one block of 8 * 24 + 2 * 64.
    autoencoder, denoiser = 5 * 128 + 4 * 256, 3 * 64 + 2 * 128 + 320
    assert found.training_flops == 6 * 7 * (3 * autoencoder + 5 * denoiser)
    assert found.sample_flops == 2 * 5 * (autoencoder + 25 * denoiser)


def test_memory_on_paper_is_that_of_values_codes_networks_and_one_step():
    found = Paper(training(width=8, blocks=1, batch=7), header(tuple(TINY.items())))
    # Five norms of sixteen values: chunks, two numbers of a code for each in float32, and a byte for what is shown.
    assert found.data_bytes == 5 * 16 * (4 * 3 + 1)
    larger = 4 * 5 * found.network_parameters
    assert found.data_bytes + 0.5 * larger < found.training_bytes < found.data_bytes + larger + 4 * 7 * 8 * 200


def test_the_peak_counts_what_is_held_at_once():
    def work():
        held = torch.zeros(1000)
        for _ in range(3):
            torch.ones(500)
        return held

    assert peak_of(work) == 4 * 1500


def test_without_a_gpu_its_figures_are_listed_and_with_one_they_are_claimed(monkeypatch):
    report = Report(quick=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu(report)
    skipped = {entry["name"] for entry in report.not_run}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(generation_cost, "measured", lambda *arguments: (1.0, 2.0, 3.0))
    on_gpu(report)
    assert claims_of(report).keys() == skipped
    assert len(skipped) == 6


def test_a_training_and_a_sample_of_random_weights_are_timed():
    known = header(tuple(TINY.items()))
    settings = training(width=8, blocks=1, autoencoder_steps=400, denoiser_steps=400, batch=4)
    training_seconds, sample, peak = measured(settings, known, torch.device("cpu"), 40)
    assert training_seconds > sample > 0.0
    assert peak == 0


class Scored:
    """A nursery without models: a candidate's margin on every item is what `worth` says, and looks are counted."""

    def __init__(self, worth=lambda recipe: 0.0, items=20):
        self.items, self.looked = {"search": items}, []
        names = ("base", *generation_mixed.SPECIALISTS)
        self.nursery = SimpleNamespace(
            models={name: SimpleNamespace(header=SimpleNamespace(layers=2)) for name in names},
            objective=SimpleNamespace(tasks=[SimpleNamespace(task=f"t{k}") for k in range(3)]),
            numbers=lambda task, side: tuple(range(100, 100 + items)),
            scorer=SimpleNamespace(score=self.score),
        )
        self._worth = worth

    def build(self, recipe):
        return SimpleNamespace(model=recipe)

    def score(self, model, task, numbers):
        self.looked.append((task, *numbers))
        return SimpleNamespace(numbers=tuple(reversed(numbers)), margins=tuple(self._worth(model) for _ in numbers))


def test_margins_are_scored_no_further_than_somebody_looks_and_never_twice():
    setting = Scored()
    margins = Margins(setting, None)
    assert margins.shape == (3, 20)
    assert margins[:, :2].shape == (3, 2)
    assert margins[:, :2].shape == (3, 2)
    assert setting.looked == [("t0", 100, 101), ("t1", 100, 101), ("t2", 100, 101)]
    assert (margins > -1.0).all()
    assert setting.looked[3] == ("t0", *range(102, 120))
    assert len(setting.looked) == 6


def test_a_search_that_goes_on_begins_with_what_it_was_told_and_ranks_what_it_scored_in_full():
    def worth(recipe):
        weights = recipe.merge.params["weight"]
        return 1.0 - sum((weights[name] - 0.8) ** 2 for name in generation_mixed.SPECIALISTS)

    told = [dict.fromkeys(generation_mixed.SPECIALISTS, weight) for weight in (0.8, 0.3)]
    place = Place(Scored(worth), [MERGES], seed=3)
    search = Continued(place, 3, told)
    search.run([10.0])
    assert [float(c.values[f"merge.{MERGE}.weight.arc"]) for c in search.ended[:1]] == [0.8]
    assert search.ranked[0].values == place.weights(told[0])
    scores = [candidate.last_heard.score for candidate in search.ranked]
    assert scores == sorted(scores, reverse=True)


def test_a_search_with_a_generator_of_its_own_samples_from_its_checkpoint_on_and_not_before(monkeypatch):
    def worth(recipe):
        weights = dict(recipe.merge.params or {}).get("weight") if recipe.merge else None
        return 1.0 - sum((weights[name] - 0.8) ** 2 for name in weights) if isinstance(weights, dict) else 0.5

    learned = []

    def generation(setting, place, elite):
        learned.extend(elite)
        around = place.space.fill(elite[0].values)
        return {"family": "generation", "generator": "ab" * 32, "subspace": 2, "arms": SAMPLED, "around": around}

    monkeypatch.setattr(generation_mixed, "_generation", generation)
    search = Opening(Scored(worth), 3, {})
    search.run([9.0, 18.0])
    kinds = [generation_mixed._kind(candidate) for candidate in search.ended]
    assert learned and {generation_mixed._kind(candidate) for candidate in learned} == {"merge"}
    assert search.around is learned[0]
    first = next(place for place, kind in enumerate(kinds) if kind in SAMPLED)
    assert max(search.ended.index(candidate) for candidate in learned) < first
