"""Agents, names: which agents there are, known without torch."""

from __future__ import annotations

AGENT_NAMES = ("random", "orbit", "yaw_return", "out_and_back", "a_b_c_a", "waypoints", "frontier")
"""Names that `make_agent` takes, in the order of `AGENTS`."""
