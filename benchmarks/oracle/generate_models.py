"""Runs inside mergekit's own environment: merge whole checkpoints as configurations say.

    <that environment's python> -m benchmarks.oracle.generate_models FOLDER

FOLDER holds `configurations.json` and one checkpoint folder per model; a folder per configuration is written into
`FOLDER/merged`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def main(folder: Path) -> None:
    """Merge every configuration of the folder."""
    # Models are named by their folders, relative to where mergekit runs.
    os.chdir(folder)
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    for name, configuration in json.loads(Path("configurations.json").read_text()).items():
        run_merge(MergeConfiguration.model_validate(configuration), str(Path("merged") / name), options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
