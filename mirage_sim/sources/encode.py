"""Encoding: every clip of a source through a codec, once, into a file of latents.

The file takes a clip whole or not at all (see `recording.crash_safe_file`): killed at any moment, it opens,
holds every clip that was finished, and the same call goes on with the next one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.arrays import own_array, own_floats
from mirage_sim.errors import FileFormatError, InputError, InputTypeError, RecordingError
from mirage_sim.geometry import downsample_depth, rescale_intrinsics
from mirage_sim.model.codec import Codec
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.recording.crash_safe_file import CrashSafeFile
from mirage_sim.recording.object_header import MAX_COMPACT_LINKS
from mirage_sim.recording.schema import CAMERA_CONVENTION
from mirage_sim.sources.clip import ClipSource, PosedClip, resized
from mirage_sim.sources.latents import (
    DTYPES,
    FORMAT,
    SCHEMA_VERSION,
    EncodedClip,
    LatentFile,
    LatentSettings,
    clip_key,
    codec_hash,
    settings_text,
)


@dataclass(frozen=True)
class EncodeConfig:
    """How clips are cut and encoded.

    Attributes:
        height: Of the pictures given to the codec, in pixels.
        width: Likewise.
        frames: Pixel frames of a clip; a rest at the end of a video that is shorter is left out.
        step: Frames of the source from one frame of a clip to the next.
        every: Frames of the source from the start of one clip to that of the next; the clip's own length if
            `None`, so that clips do not overlap.
        dtype: In which latents are kept, "float16" or "bfloat16".
        part: Which share of the videos, counted from 0, and of how many; one file each.
        skip_damaged: Whether a clip whose files are damaged is passed over and told, rather than an error.
    """

    height: int = 704
    width: int = 1280
    frames: int = 81
    step: int = 1
    every: int | None = None
    dtype: str = "float16"
    part: tuple[int, int] = (0, 1)
    skip_damaged: bool = False


@dataclass(frozen=True)
class EncodeReport:
    """What was done.

    Attributes:
        clips: Clips in the file now.
        encoded: Those that this call added.
        skipped: Damaged ones by key, with what is wrong.
    """

    clips: int
    encoded: int
    skipped: dict[str, str]


def encode_source(
    source: ClipSource, source_name: str, codec: Codec, config: EncodeConfig, path: Path
) -> EncodeReport:
    """Encode every clip of a source that the file does not hold yet.

    Args:
        source: Where clips come from.
        source_name: What the file is to say of it.
        codec: In evaluation mode; it runs on the device of its weights.
        config: How clips are cut.
        path: HDF5 file; one that is there goes on, if it was begun with the same codec and settings.

    Returns:
        What was done.

    Raises:
        InputTypeError: If the codec is no network.
        InputError: If a setting does not fit the codec or the file, or there is no clip, or too many for one
            file.
        FileFormatError: If the file is no file of latents, or a video is damaged.
        RecordingError: If the file is in use, or cannot be written.
    """
    if not isinstance(codec, nn.Module):
        raise InputTypeError(f"codec must be a torch.nn.Module, got {type(codec).__name__}")
    settings = LatentSettings(
        source=source_name,
        codec_sha256=codec_hash(codec),
        channels=codec.channels,
        spatial_stride=codec.spatial_stride,
        temporal_stride=codec.temporal_stride,
        height=config.height,
        width=config.width,
        frames=config.frames,
        step=config.step,
        every=config.every if config.every is not None else config.frames * config.step,
        dtype=config.dtype,
        part=config.part,
    )
    with contextlib.closing(_open_file(path, settings)) as file:
        there = set(LatentFile(path).keys)
        skipped: dict[str, str] = {}
        plan = _plan(source, settings, skipped if config.skip_damaged else None)
        todo = [(name, start) for name, start in plan if clip_key(name, start) not in there]
        device = next(codec.parameters()).device
        encoded = 0
        for name, start in tqdm(todo, desc="encode", unit="clip", mininterval=1.0, disable=None):
            try:
                clip = source.read(name, start, settings.frames, settings.step)
            except FileFormatError as error:
                if not config.skip_damaged:
                    raise
                skipped[clip_key(name, start)] = str(error)
                continue
            _add(file, encode_clip(clip, start, codec, settings, device))
            encoded += 1
    return EncodeReport(len(there) + encoded, encoded, skipped)


@torch.inference_mode()
def encode_clip(
    clip: PosedClip, start: int, codec: Codec, settings: LatentSettings, device: torch.device
) -> EncodedClip:
    """Encode one clip.

    Args:
        clip: F frames of any size.
        start: Its first frame in the video.
        codec: The codec.
        settings: Of the file.
        device: Where the codec's weights are.

    Returns:
        The clip of T latent frames, on the CPU.

    Raises:
        InputError: If the codec gives latents of another shape, or some that are not finite.

    Source: paper, section on training data; camera and depth of the last pixel frame, and cells kept only
        where nothing movable is seen in any pixel frame, are ours.
    """
    clip = resized(clip, (settings.height, settings.width))
    frames = frames_to_tensor(clip.frames, device)  # [F, 3, H, W]
    latents = codec.encode(frames[None])[0].to("cpu", DTYPES[settings.dtype]).contiguous()  # [T, C, h, w]
    if tuple(latents.shape) != settings.latent_shape or not bool(latents.isfinite().all()):
        raise InputError(
            f"codec must give finite latents {list(settings.latent_shape)}, got {list(latents.shape)}"
            + ("" if bool(latents.isfinite().all()) else f" with values that {settings.dtype} cannot hold")
        )
    count, _, rows, columns = settings.latent_shape
    last = slice(None, None, settings.temporal_stride)  # last pixel frame of each latent frame
    stride = settings.spatial_stride
    depth = None
    if clip.depth is not None:
        depth = downsample_depth(own_floats("depth", clip.depth[last]), stride)
    keep = torch.ones(count, rows, columns, dtype=torch.bool, device="cpu")
    if clip.movable is not None:
        cells = torch.from_numpy(own_array("movable", clip.movable))
        cells = cells.reshape(len(clip), rows, stride, columns, stride)
        moved = cells.any(dim=4).any(dim=2)  # [F, h, w]
        keep[:1] = ~moved[:1]
        groups = moved[1:].reshape(count - 1, settings.temporal_stride, rows, columns)
        keep[1:] = ~groups.any(dim=1)
    lens = own_floats("intrinsics", clip.intrinsics[last])
    return EncodedClip(
        name=clip.name,
        start=start,
        fps=clip.fps,
        latents=latents,
        depth=depth,
        keep=keep,
        cam2world=own_floats("cam2world", clip.cam2world[last]),
        intrinsics=rescale_intrinsics(lens, 1.0 / stride),
    )


def _plan(
    source: ClipSource, settings: LatentSettings, skipped: dict[str, str] | None
) -> list[tuple[str, int]]:
    """List all clips of the file's share of a source; damaged videos go to `skipped`, where there is one."""
    index, count = settings.part
    reach = (settings.frames - 1) * settings.step  # from the first frame to the last
    plan = []
    for name in source.names()[index::count]:
        try:
            length = source.length(name)
        except FileFormatError as error:
            if skipped is None:
                raise
            skipped[name] = str(error)
            continue
        plan += [(name, start) for start in range(0, length - reach, settings.every)]
    if not plan:
        raise InputError(
            f"source must have a video of {reach + 1} frames for clips of {settings.frames}, got none "
            f"among {len(source.names()[index::count])}"
        )
    if len(plan) > MAX_COMPACT_LINKS:
        raise InputError(
            f"source must have at most {MAX_COMPACT_LINKS} clips for one file, got {len(plan)}: "
            "encode it in parts"
        )
    return plan


def _open_file(path: Path, settings: LatentSettings) -> CrashSafeFile:
    """Open a file for further clips, or make it."""

    def fill(file: h5py.File) -> None:
        file.attrs["format"] = FORMAT
        file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
        file.attrs["camera_convention"] = CAMERA_CONVENTION
        file.attrs["settings"] = settings_text(settings)
        file.create_group("data")

    if not path.exists():
        if not path.parent.is_dir():
            raise RecordingError(f"path must be in a folder that exists, got {path}")
        CrashSafeFile.create(path, fill)
    begun = LatentFile(path).settings
    differing = [name for name, value in vars(settings).items() if getattr(begun, name) != value]
    if differing:
        told = {name: (getattr(begun, name), getattr(settings, name)) for name in differing}
        raise InputError(f"{path} must go on with the settings it was begun with, got (there, now) {told}")
    return CrashSafeFile(path)


def _add(file: CrashSafeFile, clip: EncodedClip) -> None:
    """Add a clip to a file, whole or not at all."""
    latents = clip.latents.view(torch.uint16) if clip.latents.dtype == torch.bfloat16 else clip.latents
    parts: dict[str, Tensor] = {"latents": latents, "keep": clip.keep}
    if clip.depth is not None:
        parts["depth"] = clip.depth
    room = sum(part.numel() * part.element_size() for part in parts.values())
    with file.transaction(room) as opened:
        group = opened["data"].create_group(clip_key(clip.name, clip.start))
        group.attrs["start"], group.attrs["fps"] = np.int64(clip.start), np.float64(clip.fps)
        for name, part in parts.items():
            packed: dict[str, Any] = (
                {} if name == "latents" else {"compression": "gzip", "compression_opts": 1}
            )
            group.create_dataset(name, data=part.numpy(), chunks=(1, *part.shape[1:]), **packed)
        group.create_dataset("cam2world", data=clip.cam2world.numpy())
        group.create_dataset("intrinsics", data=clip.intrinsics.numpy())
