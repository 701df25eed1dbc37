"""Sources: video with known cameras, from whoever made it, and its latents, encoded once."""

from mirage_sim.sources.clip import ClipSource, PosedClip, resized
from mirage_sim.sources.encode import EncodeConfig, EncodeReport, encode_source
from mirage_sim.sources.latents import EncodedClip, LatentFile, LatentSettings, codec_hash, open_latents
from mirage_sim.sources.realestate import RealEstateSource
from mirage_sim.sources.recordings import RecordingsSource
from mirage_sim.sources.vipe import VipeSource

__all__ = [
    "ClipSource",
    "EncodeConfig",
    "EncodeReport",
    "EncodedClip",
    "LatentFile",
    "LatentSettings",
    "PosedClip",
    "RealEstateSource",
    "RecordingsSource",
    "VipeSource",
    "codec_hash",
    "encode_source",
    "open_latents",
    "resized",
]
