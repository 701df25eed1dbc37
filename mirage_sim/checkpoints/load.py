"""Load: any world model, ready to generate: the embedded one, a folder of ours, or full-size weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from mirage_sim.arguments import EMBEDDED, check_world_model
from mirage_sim.checkpoints.build import build_codec, build_generator
from mirage_sim.checkpoints.checkpoint import Checkpoint
from mirage_sim.checkpoints.folder import holds_checkpoint, open_checkpoint
from mirage_sim.checkpoints.room import check_room, needed_bytes
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.model.config import CONFIG_FILE, check_offload
from mirage_sim.model.full_size import full_size_config
from mirage_sim.model.offload import offload_generator
from mirage_sim.model.packed import pack_convolutions
from mirage_sim.model.world_model import (
    WorldModel,
    WorldModelConfig,
    default_dtype,
    load_folder,
    settings_checked,
)
from mirage_sim.perception import (
    DepthEstimator,
    DepthModel,
    MapAnythingModel,
    Segmenter,
    SemanticSegmenter,
    holds_map_anything,
)
from mirage_sim.text import TextEncoder
from mirage_sim.torch_state import own_torch_state

DEPTH_FOLDER, SEGMENTER_FOLDER, TEXT_FOLDER = "depth_estimator", "segmenter", "text_encoder"


def load_world_model(
    name_or_folder: str | Path = "embedded",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    *,
    branch: str | Path | None = None,
    adapters: str | Path | None = None,
    depth: str | Path | DepthEstimator | None = None,
    segmenter: str | Path | Segmenter | None = None,
    tiling: bool = False,
    attention: str | None = None,
    compiled: bool = False,
    offload: str | None = None,
    **settings: Any,
) -> WorldModel:
    """Load a world model, ready to generate.

    Args:
        name_or_folder: "embedded" for the one inside the package; a folder that `WorldModel.save` wrote; or
            full-size weights: a diffusers folder, official files, or what `mirage-sim convert` wrote.
        device: Where it runs.
        dtype: Type of the large weights; `None` takes bf16 where the hardware has it.
        branch: Published file of a memory branch beside full-size weights.
        adapters: Published file of low-rank adapters beside full-size weights.
        depth: Folder of a depth estimator (of transformers, or MapAnything) for full-size weights, or one
            that is loaded; `depth_estimator` in the model's folder if `None`.
        segmenter: Folder of a semantic segmentation model for full-size weights, or one that is loaded;
            `segmenter` in the model's folder if `None` and it is there.
        tiling: Whether full-size pictures are encoded and decoded in tiles, for smaller cards.
        attention: How full-size attention is computed, see `Generator.set_attention`; `None`: by PyTorch.
        compiled: Whether the blocks of the full-size generator are compiled by `torch.compile`: faster, after
            a first pass of every length that takes minutes.
        offload: What of full-size weights waits in the host's memory, see `model/offload.py`: "networks",
            "blocks" or nothing.
        settings: Fields of `WorldModelConfig` that are to differ, such as `height` or `segment_length`.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        InputError: If the device is unknown, not there or too small, a setting does not fit, or no depth can
            be told.
        FileFormatError: If a file is missing, truncated, tampered with, or of another kind or version.
        MissingExtraError: If the depth estimator's package is not installed.
    """
    check_world_model("name_or_folder", name_or_folder)
    target = check_device(device)
    large = dtype if dtype is not None else default_dtype(target)
    beside = Beside(_path(branch), _path(adapters), depth, segmenter)
    with own_torch_state():
        return _load(
            Path(name_or_folder), target, large, beside, tiling, attention, compiled, offload, settings
        )


def _load(
    folder: Path,
    target: torch.device,
    large: torch.dtype,
    beside: Beside,
    tiling: bool,
    attention: str | None,
    compiled: bool,
    offload: str | None,
    settings: dict[str, Any],
) -> WorldModel:
    if str(folder) == EMBEDDED:
        with as_file(files("mirage_sim.embedded")) as packaged:
            model = load_folder(packaged)
    elif (folder / CONFIG_FILE).is_file():
        model = load_folder(folder)
    elif not holds_checkpoint(folder):
        raise FileFormatError(f"{folder} must hold {CONFIG_FILE} or full-size weights, got neither")
    else:
        check_offload(offload, str(target), compiled)
        model = _full_size(folder, beside, target, large, tiling, offload, settings)
        if compiled:
            model.generator.compile_blocks()
        if attention is not None:
            model.generator.set_attention(attention)
        return model
    if tiling or compiled or any(part is not None for part in (*vars(beside).values(), attention, offload)):
        raise InputError(
            "branch, adapters, depth, segmenter, tiling, attention, compiled and offload must be left out "
            f"but for full-size weights, got one with {folder}"
        )
    model.requires_grad_(False).eval().to(target)
    model.cast(large)
    for name, network in model.named_children():
        if name in ("codec", "refiner", "depth_head"):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            pack_convolutions(network)
        elif name == "resampler":
            pack_convolutions(model.resampler.blocks)  # the first one would round differently
    with settings_checked("settings", settings):
        return model.with_settings(**settings) if settings else model


@dataclass(frozen=True)
class Beside:
    """What comes with full-size weights; `None` for what lies in their folder, or is not there.

    Attributes:
        branch: File of a memory branch.
        adapters: File of low-rank adapters.
        depth: Depth estimator, or its folder.
        segmenter: Segmenter, or its folder.
    """

    branch: Path | None
    adapters: Path | None
    depth: str | Path | DepthEstimator | None
    segmenter: str | Path | Segmenter | None


def _full_size(
    source: Path,
    beside: Beside,
    device: torch.device,
    dtype: torch.dtype,
    tiling: bool,
    waiting: str | None,
    settings: dict[str, Any],
) -> WorldModel:
    checkpoint = open_checkpoint(source, beside.branch, beside.adapters)
    config = configure(source, checkpoint, settings)
    home = source if source.is_dir() else source.parent
    depth = beside.depth or _folder(home / DEPTH_FOLDER)
    if depth is None:
        raise InputError(
            f"depth must be the folder of a depth estimator, or {home / DEPTH_FOLDER} must be one: without "
            "depth nothing can be remembered"
        )
    if device.type == "cuda":
        needed = needed_bytes(checkpoint, config, dtype, tiling, waiting)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        check_room(needed, torch.cuda.mem_get_info(device)[0] + idle, config)
    segmenter = beside.segmenter or _folder(home / SEGMENTER_FOLDER)
    codec = build_codec(checkpoint, device, dtype)
    if tiling:
        codec.autoencoder.enable_tiling()
    generator = build_generator(checkpoint, device if waiting is None else torch.device("cpu"), dtype)
    model = WorldModel(
        config,
        codec,
        generator,
        _depth_estimator(Path(depth), device) if isinstance(depth, str | Path) else depth,
        SemanticSegmenter(Path(segmenter), device) if isinstance(segmenter, str | Path) else segmenter,
        text_encoder(home, device, dtype, config),
    )
    if waiting is not None:
        offload_generator(generator, codec, device, waiting)
    model.weights_hash = checkpoint.digest()
    return model.eval()


def configure(source: Path, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> WorldModelConfig:
    """Set a full-size model up.

    Args:
        source: Where its weights come from, for the message.
        checkpoint: They.
        settings: Fields of the config that are to differ.

    Returns:
        The config.

    Raises:
        InputError: If a setting is unknown or does not fit.
        FileFormatError: If there is no codec.
    """
    with settings_checked("settings", settings):
        config = full_size_config(checkpoint.config, **settings)
    if not checkpoint.codec:
        raise FileFormatError(f"{source} must hold the codec, too, got {list(checkpoint.parts)}")
    return config


def text_encoder(
    home: Path, device: torch.device, dtype: torch.dtype, config: WorldModelConfig
) -> TextEncoder | None:
    """The text encoder that lies beside full-size weights, or `None`."""
    there = (home / TEXT_FOLDER).is_dir()
    return TextEncoder(home, device, dtype, config.prompt_tokens) if there else None


def _depth_estimator(folder: Path, device: torch.device) -> DepthEstimator:
    return MapAnythingModel(folder, device) if holds_map_anything(folder) else DepthModel(folder, device)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _folder(path: Path) -> Path | None:
    return path if path.is_dir() else None


def check_device(device: str | torch.device) -> torch.device:
    """Give a device by its name.

    Args:
        device: "cpu", "cuda" or "cuda:N".

    Returns:
        It.

    Raises:
        InputError: If it is unknown or not there.
    """
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'device must be "cpu", "cuda" or "cuda:N", got {device!r}') from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f'device must be one that this machine has, got {device!r} without a CUDA device; use "cpu"'
        )
    return target
