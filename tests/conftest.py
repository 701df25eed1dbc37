"""Settings of the whole suite: offline, one thread, reproducible examples, one tolerance table."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.load_profile("reproducible")

TOLERANCES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}
"""How far two results that should agree may differ, relative and absolute, by dtype."""


def pytest_configure() -> None:
    torch.set_num_threads(1)


class Closeness:
    """Compares tensors with the tolerance of their dtype."""

    def __call__(self, actual: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
        """Raise unless the tensors agree; `scale` is the size of the numbers that went into them."""
        table = TOLERANCES[actual.dtype]
        torch.testing.assert_close(actual, expected, rtol=table["rtol"], atol=table["atol"] * scale)


@pytest.fixture(scope="session")
def assert_close() -> Closeness:
    """Comparison by the tolerance table, usable inside hypothesis tests."""
    return Closeness()
