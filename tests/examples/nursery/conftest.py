import shutil
from pathlib import Path

import pytest
import torch

from examples.nursery.grow import GrowthPlan, NurseryFamily, grow


@pytest.fixture(scope="session")
def smoke_family(tmp_path_factory: pytest.TempPathFactory) -> NurseryFamily:
    """A whole family of tiny models, for reading only."""
    torch.set_num_threads(1)
    return grow(tmp_path_factory.mktemp("nursery"), plan=GrowthPlan.smoke())


@pytest.fixture
def smoke_copy(smoke_family: NurseryFamily, tmp_path: Path) -> Path:
    """A complete smoke family in a folder of its own, to be damaged."""
    shutil.copytree(smoke_family.folder, tmp_path / "copy")
    return tmp_path / "copy"
