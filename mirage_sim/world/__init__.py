"""World: the state machine read → denoise → depth → write → decode, for B worlds over one model."""

from mirage_sim.world.config import WorldConfig
from mirage_sim.world.segment import Segment
from mirage_sim.world.state import WorldState
from mirage_sim.world.world import World

__all__ = ["Segment", "World", "WorldConfig", "WorldState"]
