"""How far a float32 result may be from the float64 oracle, and weights in which every tensor counts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.conftest import TOLERANCES

Weights = Mapping[str, Tensor]

EXACT = TOLERANCES[torch.float32]["rtol"]
"""Largest difference of a float32 result from its oracle, as a share of the oracle's largest number."""


def deviation(actual: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected number; shapes must be equal."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert expected.isfinite().all()
    assert actual.isfinite().all()
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


def double_weights(module: nn.Module) -> dict[str, Tensor]:
    """A float64 copy of everything in the module's state dict."""
    return {name: value.detach().double().clone() for name, value in module.state_dict().items()}


def part(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix` and a dot, without it."""
    start = f"{prefix}."
    return {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}


@torch.no_grad()
def scatter_weights(module: nn.Module, seed: int) -> None:
    """Draw every parameter anew: gains around one, biases around zero, no tensor that changes nothing."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=rng)
        gain = name.endswith("gamma") or ("norm" in name and name.endswith("weight"))
        if gain:
            parameter.copy_(1.0 + 0.2 * drawn)
        elif parameter.ndim == 1:
            parameter.copy_(0.2 * drawn)
        else:
            parameter.copy_(drawn / parameter[0].numel() ** 0.5)


def changed_tensors(weights: dict[str, Tensor], seed: int) -> list[tuple[str, dict[str, Tensor]]]:
    """One copy of the weights for every tensor, in which that tensor alone has moved a little."""
    rng = torch.Generator().manual_seed(seed)
    copies = []
    for name, value in weights.items():
        moved = value + 0.05 * torch.randn(value.shape, generator=rng, dtype=value.dtype)
        copies.append((name, weights | {name: moved}))
    return copies
