"""Latents: the file that holds encoded clips, and its reader.

    /                       format, schema_version, camera_convention, settings (JSON of `LatentSettings`)
    data/<video>@<start>    start, step, fps
        latents             [T, C, h, w] float16, or uint16 that holds the bits of bfloat16
        depth               [T, h, w] float32, z-depth in metres, 0 unknown; missing where the source has none
        keep                [T, h, w] bool, false in cells where something that may move is seen
        cam2world           [T, 4, 4] float32
        intrinsics          [T, 3, 3] float32, in cells

A latent frame stands for several pixel frames. Its camera and its depth are those of the last of them; it
keeps a cell if nothing movable is seen there in any of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import h5py
import torch
from torch import Tensor, nn

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.recording.held_file import HeldFile

FORMAT = "mirage_sim latents"
SCHEMA_VERSION = 1
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LatentSettings:
    """What all clips of a file have in common.

    Attributes:
        source: Where the clips come from.
        codec_sha256: `codec_hash` of what encoded them.
        channels: Latent channels C.
        spatial_stride: Pixels of a cell's side.
        temporal_stride: Pixel frames of a latent frame; the first one holds a single frame.
        height: Of the pictures, in pixels.
        width: Likewise.
        frames: Pixel frames of a clip.
        step: Frames of the source from one frame of a clip to the next.
        every: Frames of the source from the start of one clip to that of the next.
        dtype: "float16" or "bfloat16".
        part: Which share of the videos, counted from 0, and of how many.
    """

    source: str
    codec_sha256: str
    channels: int
    spatial_stride: int
    temporal_stride: int
    height: int
    width: int
    frames: int
    step: int
    every: int
    dtype: str
    part: tuple[int, int]

    def __post_init__(self) -> None:
        """Check ranges and what the codec asks for."""
        s, t = self.spatial_stride, self.temporal_stride
        if min(self.height, self.width) < 1 or self.height % s or self.width % s:
            raise InputError(f"height and width must be multiples of {s}, got {self.height} and {self.width}")
        if self.frames < 1 or (self.frames - 1) % t:
            raise InputError(f"frames must be 1 + {t}k, got {self.frames}")
        if self.step < 1 or self.every < 1:
            raise InputError(f"step and every must be at least 1, got {self.step} and {self.every}")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {sorted(DTYPES)}, got {self.dtype!r}")
        if not 0 <= self.part[0] < self.part[1]:
            raise InputError(f"part must be (index, count) with 0 <= index < count, got {self.part}")

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """T, C, h, w of a clip."""
        stride = self.spatial_stride
        count = 1 + (self.frames - 1) // self.temporal_stride
        return count, self.channels, self.height // stride, self.width // stride


@dataclass(frozen=True)
class EncodedClip:
    """A clip of T latent frames.

    Attributes:
        name: Video of the source.
        start: Its first frame there.
        fps: Pixel frames a second.
        latents: float16 or bfloat16 [T, C, h, w].
        depth: Z-depth float32 [T, h, w] in metres, 0 unknown, or `None` where the source has none.
        keep: bool [T, h, w], false in cells where something that may move is seen.
        cam2world: float32 [T, 4, 4].
        intrinsics: float32 [T, 3, 3] in cells.
    """

    name: str
    start: int
    fps: float
    latents: Tensor
    depth: Tensor | None
    keep: Tensor
    cam2world: Tensor
    intrinsics: Tensor


class LatentFile(HeldFile):
    """Reads encoded clips, in the order of their names.

    The file is opened for each call, and the reader can be pickled. In a `with` block it stays open, which is
    faster for many small reads, and shows no later clips.
    """

    content = "a file of latents"

    def __init__(self, path: str | Path) -> None:
        """Check that the file holds latents; `open_latents` also checks of which codec.

        Args:
            path: The file.

        Raises:
            FileFormatError: If it is missing, damaged, or of another kind or version.
        """
        super().__init__(path)
        with self._open() as file:
            told = (_text(file.attrs.get("format")), file.attrs.get("schema_version"))
            if told != (FORMAT, SCHEMA_VERSION) or not isinstance(file.get("data"), h5py.Group):
                raise FileFormatError(
                    f"{self.path} must be {FORMAT} version {SCHEMA_VERSION}, got {told[0]} version {told[1]}"
                )
            try:
                values = json.loads(file.attrs["settings"])
                self.settings = LatentSettings(**values | {"part": tuple(values["part"])})
            except (KeyError, TypeError, ValueError) as error:
                raise FileFormatError(f"{self.path} must tell its settings, got {error!r}") from error
            self._keys: list[str] = sorted(file["data"])

    @property
    def keys(self) -> list[str]:
        """Video and start of every clip, see `clip_key`."""
        return list(self._keys)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._keys)

    def has_depth(self) -> dict[str, bool]:
        """Whether each clip tells depth."""
        with self._open() as file:
            return {key: "depth" in file["data"][key] for key in self._keys}

    def clip(self, index: int) -> EncodedClip:
        """Read a clip.

        Args:
            index: Its place, from 0 on.

        Returns:
            The clip, on the CPU.

        Raises:
            InputError: If there is no such clip.
            FileFormatError: If it is damaged.
        """
        if not 0 <= index < len(self._keys):
            raise InputError(f"index must be within the {len(self._keys)} clips, got {index}")
        key = self._keys[index]
        with self._open() as file:
            try:
                return self._read(key, file["data"][key])
            except (KeyError, OSError, TypeError, ValueError) as error:
                raise FileFormatError(f"{self.path} has a damaged clip {key}: {error}") from error

    def _read(self, key: str, group: h5py.Group) -> EncodedClip:
        parts = {name: torch.from_numpy(group[name][()]) for name in group}
        wanted = self.settings.latent_shape
        if tuple(parts["latents"].shape) != wanted:
            raise ValueError(f"latents must be {list(wanted)}, got {list(parts['latents'].shape)}")
        return EncodedClip(
            name=unquote(key.rpartition("@")[0]),
            start=int(group.attrs["start"]),
            fps=float(group.attrs["fps"]),
            latents=parts["latents"].view(DTYPES[self.settings.dtype]),
            depth=parts.get("depth"),
            keep=parts["keep"],
            cam2world=parts["cam2world"],
            intrinsics=parts["intrinsics"],
        )


def open_latents(path: str | Path, codec_hash: str) -> LatentFile:
    """Open a file of latents for the codec at hand.

    Args:
        path: The file.
        codec_hash: `codec_hash` of that codec.

    Returns:
        The reader.

    Raises:
        FileFormatError: If the file is missing, damaged, of another kind or version, or of another codec.
    """
    reader = LatentFile(path)
    told = reader.settings.codec_sha256
    if told != codec_hash:
        raise FileFormatError(
            f"{path} must hold latents of the codec {codec_hash[:12]}, got those of {told[:12]}: "
            "encode the clips again with `mirage-sim encode`"
        )
    return reader


def codec_hash(codec: nn.Module) -> str:
    """Hash of all weights of a codec with their names: sha256 in hex.

    Weights are rounded to bf16 first, so that the hash does not depend on the type in which they are kept,
    float32 or bf16, nor on the device.

    Args:
        codec: The codec, with its statistics.

    Returns:
        64 hexadecimal digits.

    Source: ours.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(f"{name} {list(rounded.shape)} ".encode())
        digest.update(rounded.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def clip_key(name: str, start: int) -> str:
    """Name of a clip in the file: that of its video, made fit for a path, and its first frame."""
    return f"{quote(name, safe=' ')}@{start:08d}"


def settings_text(settings: LatentSettings) -> str:
    """Settings as they are stored."""
    return json.dumps(asdict(settings), sort_keys=True)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
