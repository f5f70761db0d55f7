import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import CancelledError, OutOfMemoryError
from evaluation import likelihood
from evaluation.architectures import caches_layers_apart, refusal
from evaluation.likelihood import LikelihoodReader, Packing
from evaluation.scorer import never
from evaluation.trees import TokenRequest, grow
from evaluation.trunks import Trunks

CPU = torch.device("cpu")
ROWS = Packing(100, 100, None)


def request(read, continuation):
    return TokenRequest(np.array(read, np.int32), np.array(continuation, np.int32))


def documents(seed, count=9, vocabulary=64):
    """Documents of 1 to 4 requests that mostly share a beginning; lengths from 1 to 40 tokens."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        trunk = draw.integers(0, vocabulary, draw.integers(0, 30)).tolist()
        group = []
        for _ in range(draw.integers(1, 5)):
            end = draw.integers(0, vocabulary, draw.integers(1, 9)).tolist()
            text = [*trunk, 1, *end]
            group.append(request(text[:-1], end))
        found.append([*group, group[0]])
    return found


@st.composite
def request_groups(draw):
    """Documents that may share a long beginning among them, of requests that may be equal or begin one another."""
    token = st.integers(0, 3) | st.integers(0, 63)
    shared = draw(st.lists(token, max_size=50))
    groups = []
    for _ in range(draw(st.integers(1, 6))):
        trunk = shared[: draw(st.integers(0, len(shared)))] + draw(st.lists(token, max_size=12))
        group = []
        for end in draw(st.lists(st.lists(token, min_size=1, max_size=5), min_size=1, max_size=4)):
            text = [*trunk, 1, *end]
            group.append(request(text[:-1], text[-draw(st.integers(1, len(text) - 1)) :]))
        groups.append(group)
    return groups


@torch.no_grad()
def one_by_one(model, group):
    """The oracle: one ordinary forward pass per request, full log-softmax in float32."""
    found = []
    for r in group:
        logits = model(torch.tensor([r.read.tolist()]), use_cache=False).logits[0, -len(r.continuation) :].float()
        target = torch.tensor(r.continuation.tolist())
        scores = torch.log_softmax(logits, -1).gather(1, target[:, None]).sum().item()
        found.append((scores, bool((logits.argmax(-1) == target).all())))
    return found


def agree(model, reader, groups, tolerance=1e-4):
    answers = reader.read(model, [grow(group) for group in groups], cancelled=never)
    for answer, group in zip(answers, groups, strict=True):
        expected = one_by_one(model, group)
        assert answer.sums == pytest.approx([total for total, _ in expected], abs=tolerance)
        assert answer.greedy.tolist() == [greedy for _, greedy in expected]
    return answers


@pytest.fixture(scope="module")
def small(make_model):
    return make_model(vocab_size=64)


@pytest.mark.parametrize("batch_tokens", [1, 50, 400, 100_000])
@pytest.mark.parametrize("packing", [Packing(0, 0, None), Packing(30, 60, 10), Packing(500, 0, 1)])
def test_packed_tries_equal_one_pass_per_request_whatever_the_packing(small, batch_tokens, packing):
    agree(small, LikelihoodReader(CPU, batch_tokens, packing), documents(0))


@settings(max_examples=40, deadline=None)
@given(
    groups=request_groups(),
    batch_tokens=st.integers(1, 600),
    packing=st.builds(Packing, st.integers(0, 200), st.integers(0, 200), st.none() | st.integers(1, 40)),
)
def test_any_requests_in_any_packing_equal_one_pass_per_request(small, groups, batch_tokens, packing):
    agree(small, LikelihoodReader(CPU, batch_tokens, packing), groups)


@pytest.mark.parametrize("rows_at_once", [1, 7, 30])
def test_logits_taken_a_few_rows_at_a_time_give_the_same(rows_at_once, small, monkeypatch):
    monkeypatch.setattr(likelihood, "LOGITS", rows_at_once * 64)
    agree(small, LikelihoodReader(CPU, 400, ROWS), documents(11))


def test_of_equally_probable_tokens_the_first_one_is_greedy():
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [0.0, -1.0, 5.0, 1.0]])
    row, token = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 2, 0])
    assert likelihood._most_probable(logits, row, token).tolist() == [True, False, True, False]


def test_on_a_gpu_fuller_rows_are_packed_than_on_a_cpu_and_no_document_gets_a_pass_of_its_own():
    assert LikelihoodReader(torch.device("cuda")).packing == Packing(512, 2048, None)
    assert LikelihoodReader(CPU).packing == Packing(128, 256, 640)


def test_equal_requests_get_equal_bits(small):
    for answer in LikelihoodReader(CPU).read(small, [grow(g) for g in documents(1)], cancelled=never):
        assert answer.sums[0] == answer.sums[-1]


def test_eager_attention_takes_the_same_packing(make_model):
    agree(make_model(vocab_size=64, attn_implementation="eager"), LikelihoodReader(CPU, 300, ROWS), documents(2))


#: Where there is a window, it is shorter than most texts.
ARCHITECTURES = [
    "llama", "mistral", "mistral-window", "qwen2", "qwen2-window", "qwen3", "gemma", "gemma2", "gemma3", "gemma3-eager",
    "phi3", "phi3-window", "gpt_neox", "gpt2",
]  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_reads_tries_right_packed_or_on_stems(name, make_architecture):
    model = make_architecture(name, vocab_size=64)
    assert refusal(model, 40) is None
    agree(model, LikelihoodReader(CPU, 200), documents(3))
    agree(model, LikelihoodReader(CPU, 200, Packing(50, 40, lone_trunk=1)), documents(3))


def test_what_takes_no_tree_masks_is_read_in_plain_rows_and_the_log_says_why_once(make_architecture, caplog):
    reader = LikelihoodReader(CPU, 200)
    for seed in (3, 4):
        agree(make_architecture("granite", vocab_size=64), reader, documents(seed))
    assert [record.message for record in caplog.records] == [
        "granite: each text is read by itself, because the architecture 'granite' is not known to take tree masks"
    ]


def test_plain_rows_are_batched_with_their_like_and_shared_beginnings_of_equal_texts_read_once(
    monkeypatch, make_architecture
):
    model = make_architecture("granite", vocab_size=64)
    sizes = []
    original = model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **rest: sizes.append(tuple(ids.shape)) or original(ids, **rest))
    short, long = [7] * 3, list(range(20))
    group = [request(text, [5]) for text in (short, long, long, long[:9], [*long[:19], 33])]
    LikelihoodReader(CPU, 40).read(model, [grow(group)], cancelled=never)
    assert sizes == [(2, 20), (1, 3)]


ROTARY = {
    "longrope": {"factor": 4.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
    "dynamic": {"factor": 4.0},
}


@pytest.mark.parametrize("kind", ROTARY)
def test_texts_beyond_the_length_that_rotary_embeddings_follow_are_read_each_as_by_a_fresh_model(
    kind, make_architecture
):
    def fresh():
        rotary = {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4} | ROTARY[kind], "vocab_size": 64}
        if kind == "longrope":
            return make_architecture("phi3", original_max_position_embeddings=12, **rotary)
        return make_architecture("llama", max_position_embeddings=12, **rotary)

    model, reader, groups = fresh(), LikelihoodReader(CPU, 200), documents(3)
    assert refusal(model, 40).by_length
    for _ in range(2):
        answers = reader.read(model, [grow(group) for group in groups], cancelled=never)
        for answer, group in zip(answers, groups, strict=True):
            alone = [one_by_one(fresh(), [r])[0][0] for r in group]
            assert answer.sums == pytest.approx(alone, abs=1e-4)


def sharing(seed, count=6):
    """Documents that all begin with the same 40 tokens."""
    shared = np.random.default_rng(seed).integers(0, 64, 40).tolist()
    return [[request([*shared, *r.read], r.continuation) for r in group] for group in documents(seed, count)]


class Passes:
    """Notes the rows and tokens of each pass over the layers."""

    def __init__(self, monkeypatch, model):
        self.shapes = []
        original = model.model.forward
        monkeypatch.setattr(
            model.model, "forward", lambda ids, **rest: self.shapes.append(tuple(ids.shape)) or original(ids, **rest)
        )


def test_a_beginning_that_documents_share_is_read_once(monkeypatch, small):
    model, groups = copy.deepcopy(small), sharing(12)
    expected = [one_by_one(model, group) for group in groups]
    passes = Passes(monkeypatch, model)
    answers = LikelihoodReader(CPU, 400).read(model, [grow(group) for group in groups], cancelled=never)
    assert passes.shapes[0] == (1, 40)
    assert sum(rows * width for rows, width in passes.shapes[1:]) < sum(len(grow(g)) - 39 for g in groups)
    for answer, exact in zip(answers, expected, strict=True):
        assert answer.sums == pytest.approx([total for total, _ in exact], abs=1e-4)


def test_one_document_s_long_trunk_is_read_without_a_mask_and_its_choices_in_one_row_over_it(monkeypatch, small):
    model = copy.deepcopy(small)
    trunk = np.random.default_rng(0).integers(0, 64, 30).tolist()
    group = [request([*trunk, *end], [*end, 3]) for end in ([1, 2], [1, 4], [5], [6, 7, 8])]
    expected = one_by_one(model, group)
    passes = Passes(monkeypatch, model)
    reader = LikelihoodReader(CPU, 400, Packing(64, 64, 20))
    (answer,) = reader.read(model, [grow(group)], cancelled=never)
    # What the last token of the trunk predicts is scored, so it stands in the second row.
    assert passes.shapes == [(1, 29), (1, 1 + 3 + 1 + 3)]
    assert answer.sums == pytest.approx([total for total, _ in expected], abs=1e-4)


def test_over_a_stem_smaller_rows_are_tried_when_memory_runs_out(monkeypatch, small):
    model, groups = copy.deepcopy(small), sharing(13)
    trees = [grow(group) for group in groups]
    expected = LikelihoodReader(CPU).read(model, trees, cancelled=never)
    broken = copy.deepcopy(model)
    attention = broken.model.layers[1].self_attn
    original, sizes = attention.forward, []

    def forward(hidden_states, **rest):
        # Breaks off among the layers: the first one has already cached what the second never reads.
        sizes.append(hidden_states.shape[1])
        if sizes[-1] > 41:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(hidden_states, **rest)

    monkeypatch.setattr(attention, "forward", forward)
    answers = LikelihoodReader(CPU).read(broken, trees, cancelled=never)
    assert max(sizes) > 41
    for mine, other in zip(answers, expected, strict=True):
        assert mine.sums == pytest.approx(other.sums, abs=1e-4)


def test_a_trunk_or_a_single_crown_that_does_not_fit_fails_the_trial(monkeypatch, small):
    trees = [grow(group) for group in sharing(14)]
    for tokens in (39, 40):
        model = copy.deepcopy(small)
        Device(monkeypatch, model, tokens)
        reader = LikelihoodReader(CPU)
        if tokens == 39:
            with pytest.raises(OutOfMemoryError, match="one text of 40 tokens"):
                reader.read(model, trees, cancelled=never)
        else:
            long = [grow([request([*range(20), *[i] * 60], [1]), request([*range(20), 9], [1])]) for i in (1, 2)]
            with pytest.raises(OutOfMemoryError, match="does not fit cpu"):
                LikelihoodReader(CPU, packing=Packing(64, 64, 10)).read(model, long, cancelled=never)


def sharing_weights(module):
    """A module with the same parameters and submodules, of which it may be given others without changing `module`."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def restacked(model, copier):
    """`model` with its first layer once more on top, as `copier` copies it, under an index of its own."""
    model = copy.deepcopy(model)
    first, second = model.model.layers
    again = copier(first)
    again.self_attn = copier(again.self_attn)
    again.self_attn.layer_idx = 2
    model.model.layers = torch.nn.ModuleList([first, second, again])
    model.config.num_hidden_layers = 3
    return model


def test_a_layer_repeated_with_its_own_index_is_read_right_on_stems_too(small):
    shared = restacked(small, sharing_weights)
    assert caches_layers_apart(shared)
    agree(shared, LikelihoodReader(CPU, packing=Packing(64, 64, 1)), documents(4))
    agree(shared, LikelihoodReader(CPU), sharing(15))


def test_a_layer_repeated_with_its_own_index_is_read_as_a_deep_copy_is(small):
    shared, apart = restacked(small, sharing_weights), restacked(small, copy.deepcopy)
    assert shared.model.layers[2].mlp.up_proj.weight is shared.model.layers[0].mlp.up_proj.weight
    reader = LikelihoodReader(CPU)
    trees = [grow(group) for group in documents(4)]
    for mine, other in zip(
        reader.read(shared, trees, cancelled=never), reader.read(apart, trees, cancelled=never), strict=True
    ):
        assert mine.sums.tolist() == other.sums.tolist()
    agree(shared, reader, documents(4))


def test_a_layer_object_twice_in_the_list_is_read_right_because_nothing_is_cached(small, caplog):
    model = copy.deepcopy(small)
    model.model.layers = torch.nn.ModuleList([model.model.layers[0], *model.model.layers])
    model.config.num_hidden_layers = 3
    agree(model, LikelihoodReader(CPU, packing=Packing(64, 64, 1)), [*documents(5), *sharing(5)])
    assert [record.message for record in caplog.records] == [
        "layers share one layer_idx, so nothing is cached: long beginnings are read with each document"
    ]


def test_half_precision_sums_stay_close_to_float32_and_have_no_rounding_of_the_sum(small):
    groups = documents(6)
    half = copy.deepcopy(small).to(torch.bfloat16)
    answers = LikelihoodReader(CPU).read(half, [grow(group) for group in groups], cancelled=never)
    exact = [total for group in groups for total, _ in one_by_one(small, group)]
    found = np.concatenate([answer.sums for answer in answers])
    assert np.abs(found - exact).mean() < 0.5
    assert np.mean(found.astype(np.float32) == torch.tensor(found).bfloat16().float().numpy()) < 0.1


def test_a_model_in_training_mode_is_read_without_dropout(small):
    model = copy.deepcopy(small)
    model.config.attention_dropout = 0.9
    agree(model.train(), LikelihoodReader(CPU), documents(7))


class Device:
    """Pretends that passes over more than `tokens` tokens do not fit."""

    def __init__(self, monkeypatch, model, tokens, error=torch.OutOfMemoryError("CUDA out of memory")):  # noqa: B008
        self.sizes = []
        original = model.model.forward

        def forward(input_ids, **rest):
            self.sizes.append(input_ids.numel())
            if input_ids.numel() > tokens:
                raise error
            return original(input_ids, **rest)

        monkeypatch.setattr(model.model, "forward", forward)


def test_when_memory_runs_out_smaller_batches_are_tried_and_kept(monkeypatch, small):
    model = copy.deepcopy(small)
    groups = documents(8)
    expected = LikelihoodReader(CPU, 4000).read(model, [grow(group) for group in groups], cancelled=never)
    device = Device(monkeypatch, model, 150)
    reader = LikelihoodReader(CPU, 4000)
    answers = reader.read(model, [grow(group) for group in groups], cancelled=never)
    assert max(device.sizes) > 150
    assert reader.batch_tokens < 400
    assert device.sizes[-1] <= 150
    for mine, other in zip(answers, expected, strict=True):
        assert mine.sums == pytest.approx(other.sums, abs=1e-4)


FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error)[-20:])
def test_when_one_row_of_several_documents_does_not_fit_they_are_read_in_smaller_rows(monkeypatch, small, error):
    model, trees = copy.deepcopy(small), [grow(group) for group in documents(8)]
    widest = max(map(len, trees))
    assert sum(map(len, trees)) > 3 * widest
    expected = LikelihoodReader(CPU, 4000).read(model, trees, cancelled=never)
    device = Device(monkeypatch, model, widest, error)
    answers = LikelihoodReader(CPU, 4000, Packing(4000, 0, None)).read(model, trees, cancelled=never)
    assert max(device.sizes) > 3 * widest >= 3 * device.sizes[-1]
    for mine, other in zip(answers, expected, strict=True):
        assert mine.sums == pytest.approx(other.sums, abs=1e-4)


def test_a_failure_that_is_none_of_memory_is_not_tried_again(monkeypatch, small):
    model = copy.deepcopy(small)
    device = Device(monkeypatch, model, 3, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        LikelihoodReader(CPU).read(model, [grow(group) for group in documents(9)], cancelled=never)
    assert len(device.sizes) == 1


def test_a_beginning_that_many_blocks_share_is_read_once_for_all_of_them(monkeypatch, small):
    model, groups = copy.deepcopy(small), sharing(12, 12)
    # These happen to share more than the others.
    groups[4:8] = [[request([*groups[4][0].read[:42], *r.read[42:]], r.continuation) for r in g] for g in groups[4:8]]
    expected = [one_by_one(model, group) for group in groups]
    passes, reader, trunks = Passes(monkeypatch, model), LikelihoodReader(CPU, 400), Trunks()
    found = []
    for start in (0, 4, 8):
        trees = [grow(group) for group in groups[start : start + 4]]
        found += reader.read(model, trees, cancelled=never, trunks=trunks)
    assert [shape for shape in passes.shapes if shape[1] == 40] == [(1, 40)]
    assert passes.shapes[0] == (1, 40)
    for answer, exact in zip(found, expected, strict=True):
        assert answer.sums == pytest.approx([total for total, _ in exact], abs=1e-4)


def test_a_beginning_is_cut_to_what_a_later_block_shares_and_dropped_for_another_one(monkeypatch, small):
    model, long, other = copy.deepcopy(small), sharing(12, 4), sharing(17, 4)
    short = [[request([*r.read[:36], *r.read[38:]], r.continuation) for r in group] for group in long]
    blocks = (long, short, long, other, long)
    expected = [one_by_one(model, group) for block in blocks for group in block]
    passes, reader, trunks, found, trunk = Passes(monkeypatch, model), LikelihoodReader(CPU, 400), Trunks(), [], []
    for block in blocks:
        begun = len(passes.shapes)
        found += reader.read(model, [grow(group) for group in block], cancelled=never, trunks=trunks)
        trunk.append(passes.shapes[begun] == (1, 40))
    assert trunk == [True, False, False, True, True]
    for answer, exact in zip(found, expected, strict=True):
        assert answer.sums == pytest.approx([total for total, _ in exact], abs=1e-4)


def test_when_one_text_does_not_fit_the_trial_fails_by_name(monkeypatch, small):
    model = copy.deepcopy(small)
    Device(monkeypatch, model, 3)
    with pytest.raises(OutOfMemoryError, match="does not fit cpu"):
        LikelihoodReader(CPU).read(model, [grow(group) for group in documents(9)], cancelled=never)


def test_cancelling_stops_between_two_batches(small):
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(CancelledError):
        LikelihoodReader(CPU, 40, Packing(0, 0, None)).read(
            small, [grow(group) for group in documents(10)], cancelled=cancelled
        )
    assert len(asked) == 3


def test_nothing_to_read_gives_nothing(small):
    assert LikelihoodReader(CPU).read(small, [], cancelled=never) == []
