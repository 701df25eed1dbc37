"""Perception: depth, sky and what may move, told from pictures by models in local folders."""

from mirage_sim.perception.align import align_depth
from mirage_sim.perception.depth_model import DepthModel
from mirage_sim.perception.map_anything import MapAnythingModel, holds_map_anything
from mirage_sim.perception.protocol import DepthEstimator, Perceived, Seen, Segmenter, Segments
from mirage_sim.perception.segmentation import SemanticSegmenter

__all__ = [
    "DepthEstimator",
    "DepthModel",
    "MapAnythingModel",
    "Perceived",
    "Seen",
    "Segmenter",
    "Segments",
    "SemanticSegmenter",
    "align_depth",
    "holds_map_anything",
]
