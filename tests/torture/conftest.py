from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def smoke_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with a family grown in seconds."""
    from examples.nursery.grow import GrowthPlan, grow

    root = tmp_path_factory.mktemp("models")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    grow(root / "nursery", plan=GrowthPlan.smoke())
    torch.set_num_threads(before)
    return root
