"""Recording: episodes as HDF5 files in robomimic's layout, and as videos."""

from mirage_sim.recording.reader import Episode, HDF5Reader
from mirage_sim.recording.schema import CAMERA_CONVENTION, SCHEMA_VERSION, make_env_args
from mirage_sim.recording.writer import HDF5Writer

__all__ = [
    "CAMERA_CONVENTION",
    "SCHEMA_VERSION",
    "Episode",
    "HDF5Reader",
    "HDF5Writer",
    "make_env_args",
]
