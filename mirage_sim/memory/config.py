"""Config: how the memory keeps tokens, checked once when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory.keyframes import KeyframesConfig

DTYPES = {
    "float8": torch.float8_e4m3fn,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class MemoryConfig:
    """How tokens are kept.

    Attributes:
        channels: Latent channels of a token.
        initial_capacity: Entries per world allocated at the start; buffers double when full.
        max_capacity: Entries per world at most; then the least recently read ones leave, the oldest first
            among equals, at least a sixteenth of the maximum at a time.
        dtype: "float8" (e4m3), "float16", "bfloat16" or "float32" for stored tokens.
        sky_depth: Z-depth in metres at which callers keep the sky, which is seen in a direction only; tokens
            in the farther half of the way there count no area. 0 if they keep none.
        depth_tolerance: Fraction of the depth, and at least this many metres, within which two entries count
            as one surface.
        refine_log_scale: A surface already held is written again when the present view is finer than what is
            held by more than this, in log of the footprint.
        min_depth: Metres below which tokens are not written (with `filter_range`).
        max_depth: Metres beyond which tokens are not written (with `filter_range`), the sky included.
        edge_threshold: Relative second difference of inverse depth at which a token flies.
        free_space_margin: How far in front of a surface seen earlier a token must be to contradict it, as a
            fraction of the depth; 5 cm are added.
        filter_range: Drop unknown depth, the lens and the sky.
        filter_edges: Drop tokens that fly between two surfaces.
        filter_free_space: Drop tokens in space that a keyframe looked through.
        keyframes: Which views are kept for the free-space filter and as references.
        fuse: Write a token only where its surface is not held as well; without, every token is an entry.
        glimpses: Views per world at most whose imagined cells without a place in space are kept, to be shown
            again to the same camera; a full ring replaces its oldest, 0 keeps none.
    """

    channels: int
    initial_capacity: int = 4096
    max_capacity: int = 262144
    dtype: str = "float16"
    sky_depth: float = 60.0
    depth_tolerance: float = 0.05
    refine_log_scale: float = math.log(1.7)
    min_depth: float = 0.1
    max_depth: float = 100.0
    edge_threshold: float = 0.15
    free_space_margin: float = 0.1
    filter_range: bool = True
    filter_edges: bool = True
    filter_free_space: bool = True
    keyframes: KeyframesConfig = field(default_factory=KeyframesConfig)
    fuse: bool = True
    glimpses: int = 64

    def is_sky(self, depth: Tensor) -> Tensor:
        """Tell which tokens stand for the sky.

        Args:
            depth: Z-depth `[...]` in metres.

        Returns:
            Boolean `[...]`.
        """
        return (
            depth > 0.5 * self.sky_depth if self.sky_depth > 0 else torch.zeros_like(depth, dtype=torch.bool)
        )

    def __post_init__(self) -> None:
        """Check the numbers; keyframes may come as a plain dict from JSON."""
        if isinstance(self.keyframes, dict):
            object.__setattr__(self, "keyframes", KeyframesConfig(**self.keyframes))
        if self.glimpses < 0:
            raise InputError(f"glimpses must be 0 or more views, got {self.glimpses}")
        if self.channels < 1:
            raise InputError(f"channels must be positive, got {self.channels}")
        if not self.sky_depth >= 0:
            raise InputError(f"sky_depth must be at least 0, got {self.sky_depth}")
        if not 0 < self.initial_capacity <= self.max_capacity:
            raise InputError(
                "initial_capacity must be positive and at most max_capacity, "
                f"got {self.initial_capacity} and {self.max_capacity}"
            )
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {sorted(DTYPES)}, got {self.dtype!r}")
        for name in ("depth_tolerance", "refine_log_scale", "edge_threshold", "free_space_margin"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.min_depth < self.max_depth:
            raise InputError(
                f"min_depth and max_depth must be increasing, got {self.min_depth}, {self.max_depth}"
            )
