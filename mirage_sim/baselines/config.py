"""Config: which baselines have weights of their own, known without torch."""

from __future__ import annotations

KINDS = ("colours", "appended", "retrieved")
