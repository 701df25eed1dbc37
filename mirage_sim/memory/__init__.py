"""Latent spatial memory: the step that keeps tokens at their place in the world and finds them again."""

from mirage_sim.memory.config import MemoryConfig
from mirage_sim.memory.keyframes import Keyframes, KeyframesConfig, KeyframeViews
from mirage_sim.memory.protocol import Memory
from mirage_sim.memory.results import MemoryRead, MemoryStats, References, SurfacePatches, WriteReport
from mirage_sim.memory.spatial_memory import SpatialMemory
from mirage_sim.memory.tokens import TokenGeometry, lift_tokens
from mirage_sim.memory.zbuffer import SplatResult, gather_tokens, match_surface, splat

__all__ = [
    "KeyframeViews",
    "Keyframes",
    "KeyframesConfig",
    "Memory",
    "MemoryConfig",
    "MemoryRead",
    "MemoryStats",
    "References",
    "SpatialMemory",
    "SplatResult",
    "SurfacePatches",
    "TokenGeometry",
    "WriteReport",
    "gather_tokens",
    "lift_tokens",
    "match_surface",
    "splat",
]
