"""Checkpoints: weights of the full-size model, from the files that others publish and back."""

from mirage_sim.checkpoints.build import build_codec, build_generator, checkpoint_of
from mirage_sim.checkpoints.checkpoint import Checkpoint
from mirage_sim.checkpoints.folder import open_checkpoint, save_checkpoint
from mirage_sim.checkpoints.load import load_world_model
from mirage_sim.checkpoints.published import save_official

__all__ = [
    "Checkpoint",
    "build_codec",
    "build_generator",
    "checkpoint_of",
    "load_world_model",
    "open_checkpoint",
    "save_checkpoint",
    "save_official",
]
