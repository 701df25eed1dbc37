"""Precision: training mixes in bf16 where the hardware multiplies it natively, else it stays in float32.

Emulated, bf16 takes about twenty times as long as float32.
"""

from __future__ import annotations

import torch

from mirage_sim.model.world_model import default_dtype


def uses_bf16(device: torch.device) -> bool:
    """Whether a device trains in bf16."""
    return default_dtype(device) == torch.bfloat16


def mixed_precision(device: torch.device, cache_enabled: bool = True) -> torch.autocast:
    """Compute in bf16 where the device does so natively.

    Args:
        device: Where the computation runs.
        cache_enabled: Whether weights that were cast are kept until the end.

    Returns:
        A context; one that does nothing on other devices.
    """
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=uses_bf16(device), cache_enabled=cache_enabled
    )
