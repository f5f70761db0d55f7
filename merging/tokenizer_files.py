"""Copying a tokenizer so that transformers 4 and 5 both open it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.checkpoint import check_inside

#: Everything a tokenizer of the supported families may consist of.
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
)
CONFIG = "tokenizer_config.json"


def copy_tokenizer(donor: Path, out: Path, roots: Sequence[Path] = ()) -> tuple[str, ...]:
    """Copy the donor's tokenizer into `out`; returns the names written.

    Args:
        donor: the checkpoint.
        out: an existing folder.
        roots: where links of the donor may end, besides its own folder.

    Raises:
        PathNotAllowedError: a file of the donor links to elsewhere.
        OSError: a file cannot be read or written.
    """
    check_inside(donor, roots)
    names = [name for name in TOKENIZER_FILES if (donor / name).is_file()]
    for name in names:
        shutil.copyfile(donor / name, out / name)
    if (donor / CONFIG).is_file():
        config = portable_config(json.loads((donor / CONFIG).read_text(encoding="utf-8")))
        text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        (out / CONFIG).write_text(text, encoding="utf-8")
        names.append(CONFIG)
    return tuple(names)


def portable_config(config: dict[str, Any]) -> dict[str, Any]:
    """The `tokenizer_config.json` in words that transformers 4 and 5 share, with nothing that points at code.

    transformers 5 calls its fast tokenizer `TokenizersBackend`, and lists extra special tokens where transformers 4
    expects a mapping.
    """
    portable = {key: value for key, value in config.items() if key not in ("auto_map", "backend", "is_local")}
    if portable.get("tokenizer_class") == "TokenizersBackend":
        portable["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(portable.get("extra_special_tokens"), list):
        extra = portable.pop("extra_special_tokens")
        portable.setdefault("additional_special_tokens", extra)
    return portable
