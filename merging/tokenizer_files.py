"""Copying a tokenizer so that transformers 4 and 5 both open it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.checkpoint import check_inside
from core.errors import CheckpointError

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
#: Those that repeat what `tokenizer.json` says.
OLDER_FORMS = ("added_tokens.json", "merges.txt", "tokenizer.model", "vocab.json")
CONFIG = "tokenizer_config.json"


def copy_tokenizer(
    donor: Path, out: Path, roots: Sequence[Path] = (), *, extended: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Copy the donor's tokenizer into `out`; returns the names written.

    Args:
        donor: the checkpoint.
        out: an existing folder.
        roots: where links of the donor may end, besides its own folder.
        extended: a `tokenizer.json` to write instead of the donor's; files that tell the same tokens in older forms are
            left out then.

    Raises:
        PathNotAllowedError: a file of the donor links to elsewhere.
        CheckpointError: its `tokenizer_config.json` is no JSON object.
        OSError: a file cannot be read or written.
    """
    check_inside(donor, roots)
    left_out = OLDER_FORMS if extended is not None else ()
    names = [name for name in TOKENIZER_FILES if name not in left_out and (donor / name).is_file()]
    for name in names:
        shutil.copyfile(donor / name, out / name)
    if extended is not None:
        _write_json(out / "tokenizer.json", extended)
    if (donor / CONFIG).is_file():
        config = portable_config(read_object(donor / CONFIG))
        if extended is not None and "added_tokens_decoder" in config:
            config["added_tokens_decoder"] = _decoder(extended)
        _write_json(out / CONFIG, config)
        names.append(CONFIG)
    return tuple(names)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a donor's file.

    Raises:
        CheckpointError: it holds something else.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(_not_an_object(path, str(error)), where=path.name) from error
    if not isinstance(found, dict):
        raise CheckpointError(_not_an_object(path, f"it holds {found!r:.50}"), where=path.name)
    return found


def _not_an_object(path: Path, found: str) -> str:
    return f"{path.name} of {path.parent.name!r} must be a JSON object, but is not ({found}): mend or delete it"


def _decoder(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """The added tokens in the form of `tokenizer_config.json`."""
    return {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in tokenizer["added_tokens"]
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=path.name == CONFIG) + "\n"
    path.write_text(text, encoding="utf-8")


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
