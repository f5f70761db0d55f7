from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from core.checkpoint import read_header, weights_digest
from core.errors import CheckpointError, MissingCheckpointError, ParentsDoNotFitError, RecipeError
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, resolve
from merging.adapters import open_parents
from merging.export import export
from merging.resident import Resident
from merging.vocabulary import ROWS, Vocabularies, mean_of_rows
from tests.merging.test_compute import LiveBytes

#: What each model's tokenizer learns its merges from.
TEXTS = {
    "base": ["the cat sat on the mat", "the hat and the cat"] * 8,
    "maths": ["the sum of three and four", "three times the sum is four"] * 8,
    "code": ["def the return lambda", "return the def of lambda"] * 8,
}
WIDTH = 16


def train(texts: list[str], vocabulary: int, specials: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted({symbol for text in texts for symbol in text.replace(" ", "Ġ")})
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, seed: int, *, spare: int = 0, tied: bool = False, **classes) -> None:
    """A Llama with a row per token and some to spare, and the tokenizer."""
    rows = tokenizer.get_vocab_size() + spare
    config = LlamaConfig(
        vocab_size=rows, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast", **classes}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """Three models of one shape: each has tokens that the others lack, `base` has rows to spare."""
    folder = tmp_path_factory.mktemp("zoo")
    for seed, (name, texts) in enumerate(TEXTS.items()):
        specials = ("<s>", "</s>", "<|user|>") if name == "code" else ("<s>", "</s>")
        write(folder / name, train(texts, 40 + 3 * seed, specials), seed, spare=5 if name == "base" else 0)
    shutil.copytree(folder / "base", folder / "twin")
    return folder


def register(folder: Path) -> Model:
    return Model(name=folder.name, ref=str(folder), weights_digest=weights_digest(folder), header=read_header(folder))


def recipe(zoo: Path, *names: str, tokenizer: object = None, **form) -> tuple[ResolvedRecipe, Vocabularies]:
    """A recipe over models of the zoo, resolved, and their vocabularies open."""
    known = {name: register(zoo / name) for name in names}
    short = Recipe.model_validate(
        {
            "sources": [{"name": name, "model": name} for name in names],
            "merge": {"method": "linear"},
            "tokenizer": {"mode": "union"} if tokenizer is None else tokenizer,
            "save_dtype": "float32",
            **form,
        }
    )
    return resolve(short, known), Vocabularies(open_parents(known.values(), Path))


def tokens_of(folder: Path) -> dict[str, int]:
    return json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]


@pytest.fixture(scope="module")
def union(zoo, tmp_path_factory) -> Path:
    """The exported mean of all three."""
    resolved, vocabularies = recipe(zoo, "base", "maths", "code")
    out = tmp_path_factory.mktemp("union") / "out"
    export(resolved, vocabularies.parents, out, tokenizer_folder=zoo / "base")
    return out


def by_hand(zoo: Path, name: str, source: str, among: tuple[str, ...], ids: dict[str, int]) -> dict[int, torch.Tensor]:
    """A source's row for every token, worked out token by token."""
    vocabularies = {each: tokens_of(zoo / each) for each in among}
    matrices = {each: load_file(zoo / each / "model.safetensors")[name].double() for each in among}
    found = {}
    for token, number in ids.items():
        have = [each for each in among if token in vocabularies[each]]
        rows = [matrices[each][vocabularies[each][token]] for each in have]
        own = source in have
        found[number] = rows[have.index(source)] if own else sum(rows) / len(rows)
    return {number: row.float() for number, row in found.items()}


def test_a_union_keeps_the_donors_ids_and_appends_in_source_and_id_order(zoo, union):
    made, vocabularies = tokens_of(union), {name: tokens_of(zoo / name) for name in TEXTS}
    assert {token: made[token] for token in vocabularies["base"]} == vocabularies["base"]
    new = [token for token in sorted(made, key=made.get) if token not in vocabularies["base"]]
    expected = sorted(vocabularies["maths"].keys() - vocabularies["base"].keys(), key=vocabularies["maths"].get)
    seen = vocabularies["base"].keys() | vocabularies["maths"].keys()
    expected += sorted(vocabularies["code"].keys() - seen, key=vocabularies["code"].get)
    assert new == expected and len(new) > 10
    assert sorted(made.values()) == list(range(len(made)))


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_every_row_is_the_mean_over_sources_of_their_rows_for_its_token(zoo, union, name):
    ids = tokens_of(union)
    sources = [by_hand(zoo, name, source, tuple(TEXTS), ids) for source in TEXTS]
    made = load_file(union / "model.safetensors")[name]
    assert made.shape == (len(ids), WIDTH)
    for number in ids.values():
        expected = torch.stack([rows[number] for rows in sources]).double().mean(0).float()
        torch.testing.assert_close(made[number], expected, rtol=1e-6, atol=1e-7)


def test_transformers_opens_the_union_and_reads_either_text(zoo, union):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(union), AutoTokenizer.from_pretrained(union)
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().weight.shape[0]
    donor = AutoTokenizer.from_pretrained(zoo / "base")
    for texts in TEXTS.values():
        for text in texts[:2]:
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert model(torch.tensor([ids])).logits.isfinite().all()
    for text in TEXTS["base"][:2]:
        assert tokenizer(text)["input_ids"] == donor(text)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<|user|>") == tokens_of(union)["<|user|>"]
    assert len(tokenizer("<|user|>the")["input_ids"]) == 2
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")


@pytest.mark.parametrize("alone", ["base", "maths", "code"])
def test_a_union_in_which_one_model_has_all_the_weight_has_that_models_logits(zoo, alone):
    """On its own tokens; the others' rows stand beside them."""
    weight = {name: float(name == alone) for name in TEXTS}
    resolved, vocabularies = recipe(zoo, *TEXTS, merge={"method": "linear", "params": {"weight": weight}})
    built = Resident(vocabularies.parents).build(resolved)
    ids, mine = vocabularies.align(resolved).ids(), tokens_of(zoo / alone)
    plain = AutoModelForCausalLM.from_pretrained(zoo / alone)
    tokenizer = Tokenizer.from_file(str(zoo / alone / "tokenizer.json"))
    for text in TEXTS[alone][:2]:
        encoded = tokenizer.encode(text)
        expected = plain(torch.tensor([encoded.ids])).logits
        found = built.model(torch.tensor([[ids[token] for token in encoded.tokens]])).logits
        columns = [ids[token] for token in sorted(mine, key=mine.get)]
        torch.testing.assert_close(found[..., columns], expected[..., : len(mine)], rtol=1e-5, atol=1e-5)


def test_what_is_built_is_what_is_exported(zoo, union):
    resolved, vocabularies = recipe(zoo, "base", "maths", "code")
    built = Resident(vocabularies.parents).build(resolved)
    exported = load_file(union / "model.safetensors")
    assert built.tensors.keys() == exported.keys()
    assert all(torch.equal(built.tensors[name], exported[name]) for name in exported)


def test_spare_rows_of_the_donor_are_taken_by_new_tokens_and_kept_where_there_are_none(zoo):
    resolved, vocabularies = recipe(zoo, "base", "twin", tokenizer={"mode": "align", "pad_to_multiple_of": 64})
    rows = load_file(zoo / "base" / "model.safetensors")["lm_head.weight"]
    made = Resident(vocabularies.parents).build(resolved).tensors["lm_head.weight"]
    assert rows.shape[0] == 35 and made.shape[0] == 64
    assert torch.equal(made[:35], rows)
    assert torch.equal(made[35:], rows[:30].double().mean(0).float().expand(29, WIDTH))
    grown, vocabularies = recipe(zoo, "base", "maths")
    alignment = vocabularies.align(grown)
    assert None not in alignment.tokens and alignment.places[0][30:35] == (-1,) * 5


def test_align_drops_what_the_donor_lacks(zoo, tmp_path):
    resolved, vocabularies = recipe(zoo, "base", "maths", tokenizer={"mode": "align", "source": "maths"})
    export(resolved, vocabularies.parents, tmp_path / "out", tokenizer_folder=zoo / "maths")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (zoo / "maths" / "tokenizer.json").read_bytes()
    ids = tokens_of(zoo / "maths")
    made = load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens.weight"]
    rows = [by_hand(zoo, "model.embed_tokens.weight", s, ("base", "maths"), ids) for s in ("base", "maths")]
    expected = torch.stack([(rows[0][n].double() + rows[1][n].double()) / 2 for n in range(len(ids))]).float()
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-7)


def test_a_method_with_deltas_leaves_a_row_that_one_source_has_as_it_is(zoo):
    merge = {"method": "task_arithmetic", "base": "base", "params": {"weight": 0.7}}
    resolved, vocabularies = recipe(zoo, "base", "maths", merge=merge)
    made = Resident(vocabularies.parents).build(resolved).tensors["model.embed_tokens.weight"]
    ids, base, maths = vocabularies.align(resolved).ids(), tokens_of(zoo / "base"), tokens_of(zoo / "maths")
    for source, tokens in (("maths", maths.keys() - base.keys()), ("base", base.keys() - maths.keys())):
        rows = load_file(zoo / source / "model.safetensors")["model.embed_tokens.weight"]
        assert tokens and all(torch.equal(made[ids[t]], rows[tokens_of(zoo / source)[t]]) for t in tokens)


def test_the_digest_follows_mode_donor_order_padding_and_tokenizers(zoo):
    def digest(*names: str, **tokenizer: object) -> str:
        return recipe(zoo, *names, tokenizer={"mode": "union", **tokenizer})[0].digest()

    digests = [
        digest("base", "maths"),
        digest("maths", "base"),
        digest("base", "maths", source="maths"),
        digest("base", "maths", mode="align"),
        digest("base", "maths", pad_to_multiple_of=8),
        digest("base", "code"),
    ]
    assert len(set(digests)) == len(digests)
    assert digest("base", "maths") == digest("base", "maths", source="base")


def test_models_of_one_vocabulary_have_nothing_to_align(zoo):
    plain, _ = recipe(zoo, "base", "twin", tokenizer="base")
    for mode in ("align", "union"):
        aligned, vocabularies = recipe(zoo, "base", "twin", tokenizer={"mode": mode, "pad_to_multiple_of": 5})
        assert aligned == plain and aligned.digest() == plain.digest()
        assert vocabularies.align(aligned) is None and vocabularies.tokenizer(aligned) is None


def test_without_alignment_other_vocabularies_are_refused_with_their_sizes_and_the_way_out(zoo):
    with pytest.raises(ParentsDoNotFitError, match=r"35 and 43 rows.*mode: union"):
        recipe(zoo, "base", "maths", tokenizer="base")


def test_recipes_among_the_sources_are_refused(zoo):
    inner = {"sources": [{"name": "b", "model": "base"}], "merge": {"method": "linear"}}
    sources = [{"name": "maths", "model": "maths"}, {"name": "inner", "recipe": inner}]
    with pytest.raises(RecipeError, match="export the inner recipe"):
        recipe(zoo, "maths", "base", sources=sources)
    inner |= {"sources": [{"name": n, "model": n} for n in ("base", "maths")], "tokenizer": {"mode": "union"}}
    with pytest.raises(RecipeError, match="export the inner recipe"):
        recipe(zoo, "maths", "base", sources=sources[1:], tokenizer="inner")


def edited(zoo: Path, tmp_path: Path, change: Callable[[dict], None]) -> Path:
    """A zoo whose `maths` has another tokenizer.json."""
    for name in ("base", "maths"):
        shutil.copytree(zoo / name, tmp_path / name)
    file = tmp_path / "maths" / "tokenizer.json"
    parsed = json.loads(file.read_text())
    change(parsed)
    file.write_text(json.dumps(parsed))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "'pre_tokenizer'"),
        (lambda t: t.update(normalizer={"type": "NFC"}), "'normalizer'"),
        (lambda t: t["model"].update(ignore_merges=True), "'ignore_merges'"),
        (lambda t: t["model"].update(type="WordPiece", merges=None), "'type'"),
        (lambda t: t["added_tokens"].append({"id": 30, "content": "cat", "special": True}), "'cat' is special in one"),
    ],
    ids=["pre-tokenizer", "normalizer", "whole words first", "another model", "special in one"],
)
def test_tokenizers_that_read_a_text_in_other_ways_are_refused_with_the_reason(zoo, tmp_path, change, what):
    resolved, vocabularies = recipe(edited(zoo, tmp_path, change), "base", "maths")
    with pytest.raises(ParentsDoNotFitError) as caught:
        vocabularies.align(resolved)
    assert what in caught.value.message and caught.value.where == "tokenizer"


def test_a_tokenizer_that_is_gone_or_replaced_is_refused(zoo, tmp_path):
    folder = edited(zoo, tmp_path, lambda _: None)
    resolved, vocabularies = recipe(folder, "base", "maths")
    file = folder / "maths" / "tokenizer.json"
    file.write_bytes((zoo / "code" / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointError, match="as registered"):
        vocabularies.align(resolved)
    file.unlink()
    with pytest.raises(MissingCheckpointError, match="AutoTokenizer"):
        vocabularies.align(resolved)


def test_tied_models_stay_tied(zoo, tmp_path):
    for seed, name in enumerate(("base", "maths")):
        write(tmp_path / name, Tokenizer.from_file(str(zoo / name / "tokenizer.json")), seed, tied=True)
    resolved, vocabularies = recipe(tmp_path, "base", "maths")
    export(resolved, vocabularies.parents, tmp_path / "out", tokenizer_folder=tmp_path / "base")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    shutil.copytree(zoo / "maths", tmp_path / "untied")
    with pytest.raises(ParentsDoNotFitError, match="tie_word_embeddings"):
        recipe(tmp_path, "base", "untied")


def test_the_mean_of_rows_is_exact_for_whole_numbers_and_ignores_other_rows():
    matrix = torch.arange(3.0 * (2 * ROWS + 5)).view(-1, 3)
    rows = torch.arange(1, 2 * ROWS + 5, 2)
    assert torch.equal(mean_of_rows(matrix, rows), matrix[rows].double().mean(0))


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_the_memory_that_aligning_rows_takes_stays_within_what_was_planned(zoo, name):
    resolved, vocabularies = recipe(zoo, "base", "maths", "code", tokenizer={"mode": "union", "pad_to_multiple_of": 64})
    vocabularies.align(resolved)
    for position in range(3):
        digest = resolved.aligned_digest(position)
        with LiveBytes() as counted:
            made = vocabularies.parents.tensor(digest, name, keep=False)
        assert made.nbytes < counted.peak <= vocabularies.parents.making_bytes(digest, name) + made.nbytes


@pytest.fixture
def framed(zoo, tmp_path):
    """The zoo beside `framed`: other weights than `base` with its tokens, and some of its `tokenizer.json` replaced."""
    for name in ("base", "maths", "code"):
        (tmp_path / name).symlink_to(zoo / name)

    def write_framed(**changed) -> Path:
        made = tmp_path / "framed"
        write(made, Tokenizer.from_file(str(zoo / "base" / "tokenizer.json")), seed=9, spare=5)
        parsed = json.loads((zoo / "base" / "tokenizer.json").read_text())
        (made / "tokenizer.json").write_text(json.dumps(parsed | changed))
        return tmp_path

    return write_framed


@pytest.mark.parametrize("order", [("base", "framed", "maths"), ("framed", "base", "maths")])
def test_a_union_frames_texts_as_its_donor_does_even_beside_a_source_of_equal_tokens(framed, order):
    frame = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    folder = framed(post_processor=frame)
    for donor, wanted in (("framed", frame), ("base", None)):
        resolved, vocabularies = recipe(folder, *order, tokenizer={"mode": "union", "source": donor})
        assert vocabularies.tokenizer(resolved)["post_processor"] == wanted


@pytest.mark.parametrize("order", [("base", "framed", "maths"), ("framed", "maths", "base")])
@pytest.mark.parametrize("mode", ["union", "align"])
def test_a_source_of_equal_tokens_that_cuts_texts_otherwise_is_refused(framed, order, mode):
    folder = framed(pre_tokenizer={"type": "Whitespace"})
    resolved, vocabularies = recipe(folder, *order, tokenizer={"mode": mode, "source": "base"})
    with pytest.raises(ParentsDoNotFitError, match="'pre_tokenizer'"):
        vocabularies.align(resolved)


_FRESH = """
import hashlib, sys, tempfile
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from core.adapters import Adapter, adapter_digest, read_adapter
from core.checkpoint import read_header, weights_digest
from core.model import Model
from core.recipe import Recipe, resolve
from core.recipe.ingredients import models_in
from merging.adapters import open_parents
from merging.export import export
from merging.resident import Resident, weights_digest as resident_digest
zoo = Path(sys.argv[1])
known = {
    n: Model(name=n, ref=n, weights_digest=weights_digest(zoo / n), header=read_header(zoo / n))
    for n in ("base", "maths", "code")
}
lora = read_adapter(zoo / "lora")
known["lora"] = Adapter(name="lora", ref="lora", weights_digest=adapter_digest(zoo / "lora", lora), header=lora)
recipe = Recipe.model_validate({
    "sources": [{"name": n, "model": n} for n in ("base", "code")] + [{"name": "m", "model": "maths", "adapter": "lora"}],
    "merge": {"method": "dare_ties", "base": "base", "params": {"density": 0.5}},
    "tokenizer": {"mode": "union", "pad_to_multiple_of": 16}, "seed": 3,
})
resolved = resolve(recipe, known)
parents = open_parents(models_in(recipe, known).values(), zoo.joinpath)
built = resident_digest(Resident(parents).build(resolved))
with tempfile.TemporaryDirectory() as out:
    info = export(resolved, parents, Path(out) / "out", tokenizer_folder=zoo / "base")
    assert info.weights_digest == built
    print(resolved.digest(), built, hashlib.sha256((Path(out) / "out" / "tokenizer.json").read_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_adapters_and_unions_give_the_same_bytes_in_every_process(zoo, tmp_path):
    folder = tmp_path / "zoo"
    shutil.copytree(zoo, folder)
    shape = load_file(zoo / "maths" / "model.safetensors")["model.layers.1.mlp.down_proj.weight"].shape
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    factors = {"A": torch.randn(3, shape[1]), "B": torch.randn(shape[0], 3)}
    (folder / "lora").mkdir()
    save_file({name.format(k): v for k, v in factors.items()}, folder / "lora" / "adapter_model.safetensors")
    (folder / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 3, "lora_alpha": 1.5}')

    def run(threads: str, seed: str) -> str:
        command = [sys.executable, "-c", _FRESH, str(folder), threads]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("1", "1") == run("2", "2")
