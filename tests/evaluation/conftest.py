import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def reference():
    """The slow references of reference.py, which lies beside the tests and is no package."""
    spec = importlib.util.spec_from_file_location(
        "evaluation_reference", Path(__file__).with_name("reference.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def unit():
    """Seeded random unit vectors: unit(n, width, seed=0, dtype=torch.float32)."""

    def make(*shape, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(x, dim=-1).to(dtype)

    return make
