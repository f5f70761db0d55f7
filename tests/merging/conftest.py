"""A family of tiny Llama checkpoints on disk, made once per test run, and short ways to resolve and open them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.catalog import catalog
from core.checkpoint import read_header, weights_digest
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, Source, resolve
from merging.sources import Parents

torch.set_num_threads(1)
# zoo.py is shared by the tests below this folder.
sys.path.insert(0, str(Path(__file__).parent))

WIDTH, VOCABULARY, LAYERS = 32, 64, 4


def llama_config(**changes: Any) -> LlamaConfig:
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaConfig(**{**fields, **changes})


def write_tokenizer(folder: Path) -> None:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", extra_special_tokens=["w3"]
    )
    wrapped.save_pretrained(folder)


def write_family(folder: Path, dtype: torch.dtype, **changes: Any) -> None:
    """`base` and its fine-tunes `a`, `b`, `c`: the base plus small noise, a different one in every tensor."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        base = LlamaForCausalLM(llama_config(**changes)).to(dtype)
        origin = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        for name in ("base", "a", "b", "c"):
            if name != "base":
                base.load_state_dict(
                    {k: (v.float() + 0.02 * torch.randn(v.shape)).to(dtype) for k, v in origin.items()}
                )
            base.save_pretrained(folder / name)
            write_tokenizer(folder / name)


class Family:
    """Registered models of one folder, and the way from a short recipe to a resolved one."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("base", "a", "b", "c")) -> None:
        self.folder = folder
        self.models = {name: self.register(folder / name) for name in names}

    @staticmethod
    def register(folder: Path) -> Model:
        return Model(
            name=folder.name,
            ref=f"local:{folder.name}",
            weights_digest=weights_digest(folder),
            header=read_header(folder),
        )

    def parents(self, **options: Any) -> Parents:
        digests = {model.weights_digest: name for name, model in self.models.items()}
        return Parents(
            {digest: self.folder / name for digest, name in digests.items()},
            {model.weights_digest: model.header for model in self.models.values()},
            **options,
        )

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "model.safetensors")

    def recipe(self, **fields: Any) -> ResolvedRecipe:
        """Resolve a short recipe whose sources are all of the family's models unless it says otherwise."""
        sources = fields.pop("sources", tuple(self.models))
        named = tuple(Source(name=s, model=s) if isinstance(s, str) else s for s in sources)
        return resolve(Recipe(sources=named, **fields), self.models)

    def merge(
        self, method: str, sources: tuple[str, ...] = ("a", "b", "c"), *, save_dtype: str = "float32", **params: Any
    ) -> ResolvedRecipe:
        """A merge, against `base` where the method takes one."""
        seed = params.pop("seed", 0)
        merge = {"method": method, "sources": list(sources), "params": params}
        merge |= {"base": "base"} if catalog().method(method).base_of("base") else {}
        return self.recipe(merge=merge, save_dtype=save_dtype, seed=seed)

    def stack(self, source: str, layers: tuple[int, ...], save_dtype: str = "float32") -> ResolvedRecipe:
        """Layers of one model in the given order."""
        slices = ({"sources": [{"source": source, "layers": list(layers)}]},)
        return self.recipe(slices=slices, save_dtype=save_dtype)


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four float32 models with untied embeddings."""
    folder = tmp_path_factory.mktemp("float32")
    write_family(folder, torch.float32)
    return Family(folder)


@pytest.fixture(scope="session")
def half_family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Four bfloat16 models with tied embeddings."""
    folder = tmp_path_factory.mktemp("bfloat16")
    write_family(folder, torch.bfloat16, tie_word_embeddings=True)
    return Family(folder)


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.tensor([[1, 5, 9, 33, 60, 7], [1, 8, 8, 20, 2, 4]])


@pytest.fixture
def rewrite(tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint's tensors into a new folder after a change."""
    import shutil

    def copy(source: Path, change: Callable[[dict[str, torch.Tensor]], None], name: str = "changed") -> Path:
        folder = tmp_path / name
        shutil.copytree(source, folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return copy


@pytest.fixture(scope="session")
def make_llama_config() -> Callable[..., LlamaConfig]:
    """A tiny Llama config with some fields changed."""
    return llama_config


@pytest.fixture(scope="session")
def save_tokenizer() -> Callable[[Path], None]:
    """Write the family's tokenizer into a folder."""
    return write_tokenizer


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Family]:
    """For each family of models a random `base` and a fine-tune `a`: `zoo("phi3")`."""
    from zoo import write_pair

    made: dict[str, Family] = {}

    def of(kind: str) -> Family:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            write_pair(kind, folder, write_tokenizer)
            made[kind] = Family(folder, ("base", "a"))
        return made[kind]

    return of
