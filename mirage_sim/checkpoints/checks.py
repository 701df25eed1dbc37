"""Checks: what is wrong with the tensors of a file, all of it in one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError, listed

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Types that hold weights as they are; narrower ones need scales that no tensor of ours has."""


def check_tensors(
    where: Path,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    unknown: Sequence[str] = (),
    say: Callable[[str], str] = str,
) -> None:
    """Raise unless the tensors are exactly the expected ones.

    Args:
        where: File or folder that they come from.
        found: By our names.
        expected: By our names; only shapes count.
        unknown: Names in the file that have none of ours.
        say: The name in the file of one of ours.

    Raises:
        FileFormatError: If tensors are missing, unexpected, of another shape or not of a floating type; it
            lists them all.
    """
    both = [name for name in expected if name in found]
    faults = {
        "missing": [say(name) for name in expected if name not in found],
        "unexpected": [*unknown, *(say(name) for name in found if name not in expected)],
        "of another shape": [
            f"{say(name)} {list(found[name].shape)} instead of {list(expected[name].shape)}"
            for name in both
            if found[name].shape != expected[name].shape
        ],
        "of another type": [
            f"{say(name)} {found[name].dtype}" for name in both if found[name].dtype not in DTYPES
        ],
    }
    said = [f"{len(names)} {fault}: {listed(names)}" for fault, names in faults.items() if names]
    if said:
        raise FileFormatError(
            f"{where} must hold the {len(expected)} tensors of the model, got {'; '.join(said)}"
        )
