from __future__ import annotations

import torch

# Models on disk, and the way from a recipe to its resolved form, as the merging room's own tests have them.
from tests.merging.conftest import family

__all__ = ["family"]

torch.set_num_threads(1)
