"""Recording: episodes as HDF5 files in robomimic's layout, and as videos."""

from mirage_sim.recording.reader import Episode, HDF5Reader
from mirage_sim.recording.repair import RepairReport, repair
from mirage_sim.recording.schema import CAMERA_CONVENTION, SCHEMA_VERSION, make_env_args
from mirage_sim.recording.vector_wrapper import RecordHDF5Vector
from mirage_sim.recording.video import contact_sheet, write_mp4, write_png
from mirage_sim.recording.wrapper import RecordHDF5
from mirage_sim.recording.writer import HDF5Writer

__all__ = [
    "CAMERA_CONVENTION",
    "SCHEMA_VERSION",
    "Episode",
    "HDF5Reader",
    "HDF5Writer",
    "RecordHDF5",
    "RecordHDF5Vector",
    "RepairReport",
    "contact_sheet",
    "make_env_args",
    "repair",
    "write_mp4",
    "write_png",
]
