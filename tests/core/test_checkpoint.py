import hashlib
import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.checkpoint import check_inside, combine_digests, read_header, stored_tensors, tokenizer_digest, weights_digest
from core.errors import (
    CheckpointError,
    MissingCheckpointError,
    PathNotAllowedError,
    PickleCheckpointError,
    QuantisedCheckpointError,
    TruncatedCheckpointError,
)
from core.model import Model, check_fit

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "rope_theta": 10000.0}
NAMES = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)] + [
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
]


def safetensors(tensors):
    """The bytes of a safetensors file, by the format's own description."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def values(name, n=6):
    return struct.pack(f"<{n}f", *[hashlib.sha256(f"{name}{i}".encode()).digest()[0] / 255 for i in range(n)])


def all_tensors():
    return {name: ("F32", [3, 2], values(name)) for name in NAMES}


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(safetensors(all_tensors()))
    return folder


def shard(folder, groups):
    """Replace the single file by shards."""
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, names in enumerate(groups):
        file = f"model-{number}.safetensors"
        (folder / file).write_bytes(safetensors({n: all_tensors()[n] for n in names}))
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_header_says_what_the_files_hold(checkpoint):
    header = read_header(checkpoint)
    assert (header.layers, header.vocab_size, header.rope_theta) == (2, 3, 10000.0)
    assert [t.name for t in header.tensors] == sorted(NAMES)
    assert header.parameters == 5 * 6
    assert header.layer_suffixes(1) == ("mlp.up_proj.weight",)


def test_the_weights_digest_is_the_documented_one(checkpoint):
    entries = [(n, "F32", (3, 2), hashlib.sha256(values(n)).hexdigest()) for n in NAMES]
    text = json.dumps([[n, d, list(s), h] for n, d, s, h in sorted(entries)], separators=(",", ":"))
    assert weights_digest(checkpoint) == hashlib.sha256(text.encode()).hexdigest() == combine_digests(entries)


def test_the_weights_digest_does_not_depend_on_shards_or_their_order(checkpoint):
    whole = weights_digest(checkpoint)
    shard(checkpoint, [NAMES[3:], NAMES[:3]])
    assert weights_digest(checkpoint) == whole


def test_one_changed_byte_changes_the_digest(checkpoint):
    before = weights_digest(checkpoint)
    raw = bytearray((checkpoint / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(bytes(raw))
    assert weights_digest(checkpoint) != before


def test_every_tensor_is_visited_with_its_own_bytes(checkpoint):
    seen = {}
    weights_digest(checkpoint, visit=lambda stored, data: seen.update({stored.info.name: bytes(data)}))
    assert seen == {name: values(name) for name in NAMES}


def test_an_error_of_the_visitor_is_not_hidden(checkpoint):
    def refuse(stored, data):
        kept.append(data)
        raise CheckpointError("no")

    kept = []
    with pytest.raises(CheckpointError, match="no"):
        weights_digest(checkpoint, visit=refuse)


@pytest.mark.parametrize("cut", [1, 8, 100, 200])
def test_a_truncated_file_is_named(checkpoint, cut):
    raw = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(raw[:-cut])
    with pytest.raises(TruncatedCheckpointError, match=r"model\.safetensors"):
        read_header(checkpoint)


@pytest.mark.parametrize("garbage", [b"", b"\x01", struct.pack("<Q", 1 << 60), struct.pack("<Q", 4) + b"nope"])
def test_a_damaged_header_is_named(checkpoint, garbage):
    (checkpoint / "model.safetensors").write_bytes(garbage)
    with pytest.raises(TruncatedCheckpointError):
        read_header(checkpoint)


def test_a_header_that_lies_about_a_shape_is_refused(checkpoint):
    wrong = all_tensors() | {"lm_head.weight": ("F32", [4, 2], values("x"))}
    (checkpoint / "model.safetensors").write_bytes(safetensors(wrong))
    with pytest.raises(TruncatedCheckpointError, match=r"lm_head\.weight"):
        read_header(checkpoint)


def test_missing_parts_are_named(checkpoint):
    with pytest.raises(MissingCheckpointError, match="nowhere"):
        read_header(checkpoint / "nowhere")
    shard(checkpoint, [NAMES[:2], NAMES[2:]])
    (checkpoint / "model-1.safetensors").unlink()
    with pytest.raises(MissingCheckpointError, match="model-1"):
        read_header(checkpoint)


def test_a_layer_without_a_tensor_of_its_siblings_is_refused(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(
        safetensors({n: all_tensors()[n] for n in NAMES if "1.mlp" not in n})
    )
    with pytest.raises(MissingCheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        read_header(checkpoint)


def test_a_shard_outside_the_folder_is_refused(checkpoint):
    shard(checkpoint, [NAMES])
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-0.safetensors", "../../etc/passwd"))
    with pytest.raises(CheckpointError, match="beside"):
        read_header(checkpoint)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("pytorch_model.bin", PickleCheckpointError),
        ("consolidated.pth", PickleCheckpointError),
        ("q4.gguf", QuantisedCheckpointError),
    ],
)
def test_pickles_and_quantised_files_are_refused_with_the_way_out(checkpoint, file, error):
    (checkpoint / "model.safetensors").rename(checkpoint / file)
    with pytest.raises(error, match=r"safe_serialization|gguf_file"):
        read_header(checkpoint)
    (checkpoint / "config.json").unlink()  # As such files are often published alone.
    for place in (checkpoint, checkpoint / file):
        with pytest.raises(error, match=r"safe_serialization|gguf_file"):
            read_header(place)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_config_of_quantised_weights_is_refused_with_the_way_out(checkpoint, key):
    (checkpoint / "config.json").write_text(json.dumps(CONFIG | {key: {"bits": 4}}))
    with pytest.raises(QuantisedCheckpointError, match=r"dequantize\(\)") as caught:
        read_header(checkpoint)
    assert caught.value.where == key


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "size"),
    [
        ("model.layers.0.mlp.up_proj.qweight", "I32", [6], 24),  # GPTQ, AWQ
        ("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "U8", [6], 6),
        ("model.layers.0.mlp.up_proj.SCB", "I8", [6], 6),
        ("model.layers.0.mlp.up_proj.weight_scale", "F8_E4M3", [6], 6),
    ],
)
def test_tensors_of_quantised_weights_are_refused_by_name_whatever_the_config_says(
    checkpoint, name, dtype, shape, size
):
    odd = {name: (dtype, shape, b"\0" * size)}
    (checkpoint / "model.safetensors").write_bytes(safetensors(all_tensors() | odd))
    with pytest.raises(QuantisedCheckpointError, match=dtype) as caught:
        read_header(checkpoint)
    assert caught.value.where == name


def test_a_family_that_is_not_known_is_read_with_all_tensors_outside_the_stack(checkpoint):
    config = {"model_type": "rwkv", "text_config": {"vocab_size": 3}, "rope_theta": "odd", "layer_types": 7}
    (checkpoint / "config.json").write_text(json.dumps(config))
    header = read_header(checkpoint)
    assert (header.model_type, header.layers, header.vocab_size, header.rope_theta) == ("rwkv", 0, 3, None)
    assert header.embed_tensors() == tuple(sorted(NAMES)) and header.head_tensors() == ()
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "rwkv"}))
    assert read_header(checkpoint).vocab_size == 0


@pytest.mark.parametrize("name", [None, "", 7, ["llama"], "../llama", "x" * 101, "a b"])
def test_a_model_type_that_is_no_name_is_refused(checkpoint, name):
    (checkpoint / "config.json").write_text(json.dumps(CONFIG | {"model_type": name}))
    for read in (read_header, weights_digest):
        with pytest.raises(CheckpointError, match="model_type") as caught:
            read(checkpoint)
        assert len(caught.value.message) < 300


def test_a_tensor_in_two_shards_is_refused(checkpoint):
    shard(checkpoint, [NAMES, NAMES[:1]])
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    index["weight_map"]["extra"] = "model-0.safetensors"
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="two shards"):
        stored_tensors(checkpoint)


def test_a_tokenizers_digest_is_over_its_vocabulary_not_its_file(checkpoint):
    assert tokenizer_digest(checkpoint) is None
    parsed = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [], "version": "1"}
    file = checkpoint / "tokenizer.json"
    file.write_text(json.dumps(parsed))
    first = tokenizer_digest(checkpoint)
    file.write_text(json.dumps(parsed | {"version": "2"}, indent=3))
    assert tokenizer_digest(checkpoint) == first
    parsed["model"]["vocab"]["b"] = 1
    file.write_text(json.dumps(parsed))
    assert tokenizer_digest(checkpoint) != first


def raw_file(header, data=b""):
    """A safetensors file with any JSON value, or any text, as its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        "x",
        None,
        {"a": []},
        {"a": None},
        {"a": {}},
        {"a": entry(0, 8, [-2])},
        {"a": entry(0, 8, [-1, -2])},
        {"a": entry(0, 8, [True, 2])},
        {"a": entry(0, 8, [2.0])},
        {"a": entry(0, 8) | {"shape": "2"}},
        {"a": entry(0, 0, [0])},
        {"a": entry(-8, 0)},
        {"a": entry(8, 0)},
        {"a": entry(0, 8) | {"data_offsets": [0, 8, 16]}},
        {"a": entry(0, 8) | {"data_offsets": ["0", "8"]}},
        {"a": entry(0, 8) | {"data_offsets": {"0": 8}}},
        {"a": entry(0, 8), "b": entry(0, 8)},
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(12, 16, [1])},
        {"a": entry(4, 12), "b": entry(12, 16, [1])},
        {"a": entry(0, 8)},
        {"a\0b": entry(0, 16, [4])},
        b'{"\\ud800": {}}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 50_000 + b"]" * 50_000,
        b"\xff\xfe",
    ],
)
def test_a_header_that_no_writer_makes_is_a_damaged_file(checkpoint, header):
    (checkpoint / "model.safetensors").write_bytes(raw_file(header, bytes(16)))
    for read in (read_header, weights_digest):
        with pytest.raises(TruncatedCheckpointError) as found:
            read(checkpoint)
        assert len(found.value.message) < 400


@pytest.mark.parametrize(
    "name", ["model.layers.².x", "model.layers.01.x", "model.layers.-1.x", f"model.layers.{'9' * 5000}.x"]
)
def test_an_index_that_is_none_belongs_to_no_layer(checkpoint, name):
    (checkpoint / "model.safetensors").write_bytes(safetensors(all_tensors() | {name: ("F32", [6], values("x"))}))
    header = read_header(checkpoint)
    assert header.layer_suffixes(1) == ("mlp.up_proj.weight",)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"num_hidden_layers": 10**9}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"rope_scaling": "linear"}),
        ("config.json", {"vocab_size": 4}),
        ("config.json", {"hidden_size": 3}),
        ("model.safetensors.index.json", {"weight_map": ["model.safetensors"]}),
        ("model.safetensors.index.json", {"weight_map": {"a": "x" * 5000}}),
        ("model.safetensors.index.json", {"weight_map": {"a": "a\0b"}}),
        ("tokenizer.json", {"model": ["BPE"]}),
        ("tokenizer.json", {"added_tokens": [1]}),
        ("tokenizer.json", {"added_tokens": {"id": 1}}),
    ],
)
def test_a_damaged_companion_of_the_weights_has_a_code(checkpoint, file, content):
    (checkpoint / file).write_text(json.dumps((CONFIG if file == "config.json" else {}) | content))
    with pytest.raises(CheckpointError):
        read_header(checkpoint)


def test_an_embedding_that_is_no_matrix_is_refused(checkpoint):
    flat = all_tensors() | {"model.embed_tokens.weight": ("F32", [6], values("x"))}
    (checkpoint / "model.safetensors").write_bytes(safetensors(flat))
    with pytest.raises(CheckpointError, match="must be a matrix"):
        read_header(checkpoint)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I8"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-4, 64), max_size=3) | JSON,
    },
)
HEADERS = JSON | st.dictionaries(st.sampled_from([*NAMES, "model.layers.1x.w", "__metadata__"]), ENTRIES | JSON)
FIELDS = [
    *("num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("rope_theta", "rope_scaling", "rope_parameters", "layer_types", "model_type", "quantization_config"),
    *("hidden_act", "rms_norm_eps", "tie_word_embeddings", "partial_rotary_factor"),
]
CONFIGS = JSON | st.dictionaries(st.sampled_from(FIELDS), JSON | st.integers(-1, 4)).map(lambda c: CONFIG | c)


@pytest.mark.parametrize(
    ("file", "contents"),
    [
        ("model.safetensors", HEADERS),
        ("config.json", CONFIGS),
        ("model.safetensors.index.json", JSON | st.fixed_dictionaries({"weight_map": JSON})),
        ("tokenizer.json", JSON | st.fixed_dictionaries({"model": JSON, "added_tokens": JSON})),
    ],
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_says_the_answer_is_a_header_or_a_code(checkpoint, file, contents, data):
    content = data.draw(contents)
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    if file == "model.safetensors":
        (checkpoint / file).write_bytes(raw_file(content, bytes(data.draw(st.sampled_from([0, 16, 64])))))
    else:
        (checkpoint / file).write_text(json.dumps(content))
    try:
        header = read_header(checkpoint)
        weights_digest(checkpoint)
    except CheckpointError:
        pass
    else:
        model = Model(name="m", ref="local:m", weights_digest="w", header=header)
        check_fit([model, model])
        assert "\\u0000" not in header.model_dump_json(exclude={"config"})
    finally:
        (checkpoint / file).unlink()
        for path, raw in before.items():
            path.write_bytes(raw)


@pytest.fixture
def secret(tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "secret.json").write_text("{}")
    return place / "secret.json"


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model-0.safetensors", "anything"])
def test_a_link_out_of_the_checkpoint_is_refused_by_name(checkpoint, secret, name):
    (checkpoint / name).unlink(missing_ok=True)
    (checkpoint / name).symlink_to(secret)
    with pytest.raises(PathNotAllowedError, match=repr(name)) as found:
        check_inside(checkpoint)
    assert found.value.where == name
    assert "secret" not in found.value.message
    with pytest.raises(PathNotAllowedError):
        check_inside(checkpoint, [checkpoint.parent / "else", checkpoint])
    check_inside(checkpoint, [secret.parent])


def test_what_counts_is_where_a_chain_of_links_ends(checkpoint, secret, tmp_path):
    (checkpoint / "near.json").symlink_to("config.json")
    (checkpoint / "up.json").symlink_to(f"../{checkpoint.name}/config.json")
    check_inside(checkpoint)
    (checkpoint / "inner").mkdir()
    (checkpoint / "inner/on.json").symlink_to(secret)
    (checkpoint / "merges.txt").symlink_to("inner/on.json")
    with pytest.raises(PathNotAllowedError, match="merges"):
        check_inside(checkpoint)


@pytest.mark.parametrize("target", ["/nowhere/at/all", "loop.json", "../elsewhere"])
def test_links_to_nothing_to_themselves_or_to_folders_are_refused(checkpoint, secret, target):
    (checkpoint / "loop.json").symlink_to(target)
    with pytest.raises(PathNotAllowedError, match="loop"):
        check_inside(checkpoint)


def test_the_checkpoint_itself_may_be_reached_by_a_link(checkpoint, tmp_path):
    (tmp_path / "alias").symlink_to(checkpoint)
    check_inside(tmp_path / "alias")
    check_inside(checkpoint.parent / "nowhere")


def test_the_files_of_a_hub_snapshot_lie_under_the_cache(checkpoint, tmp_path):
    snapshot = tmp_path / "cache/models--o--m/snapshots/0123"
    (tmp_path / "cache/models--o--m/blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (tmp_path / "cache/models--o--m/blobs/ab").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/ab")
    (tmp_path / "linked-cache").symlink_to(tmp_path / "cache")
    check_inside(snapshot, [tmp_path / "linked-cache"])
    with pytest.raises(PathNotAllowedError):
        check_inside(snapshot)
