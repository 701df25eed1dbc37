"""Checkpoints: weights of the full-size model, from the files that others publish and back."""
