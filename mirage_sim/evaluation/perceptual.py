"""Perceptual distance: LPIPS where the package and its weights are installed; nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_BACKBONE = "alexnet-owt-7be5be79.pth"


@cache
def _network() -> Any:
    """The network, or `None`."""
    found = Path(torch.hub.get_dir()) / "checkpoints" / _BACKBONE
    if importlib.util.find_spec("lpips") is None or not found.is_file():
        return None
    return importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()


@torch.no_grad()
def lpips_distance(one: Tensor, two: Tensor) -> float:
    """Mean LPIPS (AlexNet) of pairs of pictures.

    Args:
        one: [N, 3, H, W] in [-1, 1].
        two: Likewise.

    Returns:
        The distance; NaN where the package `lpips` or the weights of AlexNet are not installed.

    Source: Zhang et al. 2018.
    """
    network = _network()
    return float("nan") if network is None else float(network(one, two).mean())
