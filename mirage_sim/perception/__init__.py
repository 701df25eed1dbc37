"""Perception: depth, sky and what may move, told from pictures by models of transformers in local folders."""

from mirage_sim.perception.align import align_depth
from mirage_sim.perception.depth_model import DepthModel
from mirage_sim.perception.protocol import DepthEstimator, Perceived, Seen, Segmenter, Segments
from mirage_sim.perception.segmentation import SemanticSegmenter

__all__ = [
    "DepthEstimator",
    "DepthModel",
    "Perceived",
    "Seen",
    "Segmenter",
    "Segments",
    "SemanticSegmenter",
    "align_depth",
]
