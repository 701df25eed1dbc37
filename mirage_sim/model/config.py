"""Config: settings of networks that are known without torch, for whoever checks before loading anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from mirage_sim.errors import InputError

CONFIG_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
"""Files of a folder that `WorldModel.save` writes."""
EXTRA_CHANNELS = 6  # mask, offset u, offset v, log scale, view cosine, log depth


def condition_channels(channels: int) -> int:
    """Channels of the condition for a codec of `channels` channels."""
    return channels + EXTRA_CHANNELS


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of backbone and branch.

    Attributes:
        channels: Latent channels C.
        condition_channels: Channels Cc of the condition (see `condition.py`).
        heads: Attention heads.
        head_dim: Channels of one head; width is heads * head_dim.
        layers: Backbone blocks.
        ffn_dim: Hidden width of the feed-forward layers.
        context_dim: Channels of one context token (text or motion).
        patch_size: Latent frames, rows and columns of one token.
        branch_every: One branch block for every so many backbone blocks.
    """

    channels: int = 32
    condition_channels: int = 38
    heads: int = 3
    head_dim: int = 64
    layers: int = 4
    ffn_dim: int = 768
    context_dim: int = 16
    patch_size: tuple[int, int, int] = field(default=(1, 2, 2))
    branch_every: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        numbers = {key: value for key, value in asdict(self).items() if isinstance(value, int)}
        bad = {key: value for key, value in numbers.items() if value < 1}
        if bad:
            raise InputError(f"generator sizes must be at least 1, got {bad}")
        if self.patch_size[0] != 1:
            raise InputError(f"patch_size must be 1 in time, got {self.patch_size}")

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Rows and columns of cells in one token."""
        return self.patch_size[1], self.patch_size[2]


WAN_5B = GeneratorConfig(
    channels=48,
    condition_channels=condition_channels(48),
    heads=24,
    head_dim=128,
    layers=30,
    ffn_dim=14336,
    context_dim=4096,
)
"""Wan2.2-TI2V-5B with a memory branch beside every second block."""
PRECEDING, REFERENCES, PROMPT, STEPS = 2, 4, 512, 20
"""Latent frames before the target, earlier views, tokens of a prompt, and passes of a step, as published."""
CHUNK = 8
"""Latent frames that a step adds, after one that overlaps."""

OFFLOADS = ("networks", "blocks")
"""What of full-size weights can wait in the host's memory, see `offload`."""


def check_offload(kind: str | None, device: str, compiled: bool = False) -> None:
    """Raise unless a kind of offload is known, of use on the device, and wanted of blocks as they are.

    Args:
        kind: One of `OFFLOADS`, or `None`.
        device: Name of the device.
        compiled: Whether blocks are compiled.

    Raises:
        InputError: If it is not.
    """
    if kind is not None and kind not in OFFLOADS:
        raise InputError(f"offload must be None or one of {OFFLOADS}, got {kind!r}")
    if kind is not None and device.partition(":")[0] != "cuda":
        raise InputError(f"offload must be None but for a CUDA device, got {kind!r} for {device}")
    if kind is not None and compiled:
        raise InputError(f"compiled must be False with offload, got it with {kind!r}")


@dataclass(frozen=True)
class SamplerConfig:
    """How latents are drawn.

    Attributes:
        steps: Passes through the network.
        shift: Shift s of the noise levels, σ' = sσ / (1 + (s - 1)σ).
        scheduler: "euler" for few steps, "unipc" for the full-size model.
        known_fraction: Share f of noise in the start of cells that the memory knows but not exactly; 1 starts
            them all at noise.
        refine_steps: Passes through the refiner; 0 leaves what the generator drew.
    """

    steps: int = 1
    shift: float = 1.0
    scheduler: str = "euler"
    known_fraction: float = 0.0
    refine_steps: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        if self.refine_steps < 0:
            raise InputError(f"refine_steps must be at least 0, got {self.refine_steps}")
        if self.scheduler not in ("euler", "unipc"):
            raise InputError(f'scheduler must be "euler" or "unipc", got {self.scheduler!r}')
        if not 0.0 <= self.known_fraction <= 1.0:
            raise InputError(f"known_fraction must be in [0, 1], got {self.known_fraction}")


@dataclass(frozen=True)
class LoRAConfig:
    """Size of the adapters.

    Attributes:
        rank: Rank of every adapter.
        alpha: Scale of an adapter is alpha / rank.
        dropout: Share of an adapter's inputs dropped in training.
    """

    rank: int = 32
    alpha: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.rank, self.alpha) < 1 or not 0.0 <= self.dropout < 1.0:
            raise InputError(
                "rank and alpha must be at least 1 and dropout in [0, 1), "
                f"got {self.rank}, {self.alpha} and {self.dropout}"
            )
