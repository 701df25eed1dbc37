"""World model: codec, resampler, generator, refiner, depth head and sampler settings, loaded from one folder.

A folder holds `model.json` (kind, version, shapes, hash of the weights) and `model.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.geometry import make_intrinsics
from mirage_sim.memory import MemoryConfig
from mirage_sim.model.codec import Codec, EmbeddedCodec, EmbeddedCodecConfig
from mirage_sim.model.condition import condition_channels
from mirage_sim.model.depth_head import DepthHead, DepthHeadConfig
from mirage_sim.model.generator import Generator, GeneratorConfig
from mirage_sim.model.refiner import Refiner, RefinerConfig
from mirage_sim.model.resampler import Resampler, ResamplerConfig
from mirage_sim.model.sampler import SamplerConfig

KIND = "mirage_sim.world_model"
SCHEMA_VERSION = 1
CONFIG_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
KEEP_FLOAT32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "norm_out", "latent_")


@dataclass(frozen=True)
class WorldModelConfig:
    """Everything but the weights.

    Attributes:
        model_id: Name that recordings and saved worlds carry.
        height: Image rows in pixels.
        width: Image columns in pixels.
        fov_x_deg: Horizontal field of view in degrees when the caller gives no intrinsics.
        segment_length: Latent frames T that one step generates.
        preceding: Latent frames before the target that the generator sees.
        preceding_with_memory: Whether it sees them also where the memory knows a part of the view (they are
            in the memory already; without, the sequence is half as long).
        references: Earlier views, chosen by 3D overlap, that the generator sees.
        extras: Whether the condition tells offset, scale, view and depth beside the latents.
        max_depth_spread: Tokens whose depth is less certain than this (in log metres) are not remembered.
        codec: Shape of the codec.
        generator: Shape of the generator.
        depth_head: Shape of the depth head.
        resampler: Shape of the resampler.
        refiner: Shape of the refiner.
        sampler: How latents are drawn.
        memory: How the memory keeps tokens.
    """

    model_id: str = "embedded"
    height: int = 128
    width: int = 128
    fov_x_deg: float = 75.0
    segment_length: int = 1
    preceding: int = 1
    preceding_with_memory: bool = False
    references: int = 0
    extras: bool = True
    max_depth_spread: float = 0.25
    codec: EmbeddedCodecConfig = field(default_factory=EmbeddedCodecConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    depth_head: DepthHeadConfig = field(default_factory=DepthHeadConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    memory: MemoryConfig = field(default_factory=lambda: MemoryConfig(channels=32))

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        channels = {
            self.codec.channels,
            self.generator.channels,
            self.depth_head.channels,
            self.resampler.channels,
            self.refiner.channels,
            self.memory.channels,
        }
        if len(channels) != 1:
            raise InputError(
                "codec, generator, depth_head, resampler, refiner and memory must share channels, "
                f"got {channels}"
            )
        if self.generator.condition_channels != condition_channels(self.codec.channels):
            raise InputError(
                f"generator.condition_channels must be {condition_channels(self.codec.channels)}, "
                f"got {self.generator.condition_channels}"
            )
        if min(self.segment_length, self.preceding) < 1 or self.references < 0:
            raise InputError("segment_length and preceding must be at least 1 and references at least 0")


def config_from_dict(values: Mapping[str, Any], kind: type[Any] = WorldModelConfig) -> Any:
    """Rebuild a (nested) config from what `dataclasses.asdict` gave.

    Args:
        values: Plain values; lists stand for tuples.
        kind: Config class.

    Returns:
        An instance of `kind`.

    Raises:
        FileFormatError: If a key is unknown.
    """
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise FileFormatError(f"{kind.__name__} has no {unknown}: the file is of another version")
    nested = {
        "codec": EmbeddedCodecConfig,
        "generator": GeneratorConfig,
        "depth_head": DepthHeadConfig,
        "resampler": ResamplerConfig,
        "refiner": RefinerConfig,
        "sampler": SamplerConfig,
        "memory": MemoryConfig,
    }
    parsed: dict[str, Any] = {}
    for key, value in values.items():
        if kind is WorldModelConfig and key in nested:
            parsed[key] = config_from_dict(value, nested[key])
        else:
            parsed[key] = tuple(value) if isinstance(value, list) else value
    return kind(**parsed)


class WorldModel(nn.Module):
    """The networks of one world model; several worlds may share it."""

    def __init__(self, config: WorldModelConfig | None = None) -> None:
        """Build the networks with random weights.

        Args:
            config: Shapes and settings.
        """
        super().__init__()
        self.config = config if config is not None else WorldModelConfig()
        self.codec = EmbeddedCodec(self.config.codec)
        self.generator = Generator(self.config.generator)
        self.depth_head = DepthHead(self.config.depth_head)
        self.resampler = Resampler(self.config.resampler)
        self.refiner = Refiner(self.config.refiner)
        self.weights_hash = ""

    @property
    def latent_hw(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        stride = self.codec.spatial_stride
        return self.config.height // stride, self.config.width // stride

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a latent frame."""
        return self.codec.channels, *self.latent_hw

    @property
    def frames_per_latent(self) -> int:
        """Pixel frames that one latent frame of a running world stands for."""
        codec: Codec = self.codec
        return codec.temporal_stride

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.codec.latent_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the large weights."""
        return self.generator.backbone.patch_embedding.weight.dtype  # type: ignore[no-any-return]

    def intrinsics(self) -> Tensor:
        """Default intrinsics [3, 3] in pixels of the model's images."""
        return make_intrinsics(self.config.height, self.config.width, self.config.fov_x_deg)

    def with_settings(self, **changes: Any) -> WorldModel:
        """Return a model that shares these weights under other settings (sampler, references, extras, …)."""
        other = WorldModel.__new__(WorldModel)
        nn.Module.__init__(other)
        other.config = replace(self.config, **changes)
        for name, part in self.named_children():
            setattr(other, name, part)
        other.weights_hash = self.weights_hash
        return other

    def cast(self, dtype: torch.dtype) -> WorldModel:
        """Cast the large weights to `dtype`; norms, tables and statistics stay float32."""
        for name, parameter in self.named_parameters():
            if not stays_float32(name):
                parameter.data = parameter.data.to(dtype)
        return self

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` (bf16 but for norms, tables and statistics), then `model.json`.

        Args:
            folder: Made if missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, tensor in self.state_dict().items():
            dtype = torch.float32 if stays_float32(name) else torch.bfloat16
            tensors[name] = tensor.detach().cpu().to(dtype).contiguous()
        temporary = folder / (WEIGHTS_FILE + ".tmp")
        save_file(tensors, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        os.replace(temporary, folder / WEIGHTS_FILE)
        text = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "sha256": digest,
            "config": asdict(self.config),
        }
        temporary = folder / (CONFIG_FILE + ".tmp")
        temporary.write_text(json.dumps(text, indent=2) + "\n")
        os.replace(temporary, folder / CONFIG_FILE)


def stays_float32(name: str) -> bool:
    """Whether the tensor of this name is never cast: norms, tables and statistics outside the autoencoder."""
    return any(part in name for part in KEEP_FLOAT32) and not name.startswith("codec.autoencoder")


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def load_world_model(
    name_or_folder: str | Path = "embedded",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> WorldModel:
    """Load a world model, ready to generate.

    Args:
        name_or_folder: "embedded" for the one inside the package, or a folder that `WorldModel.save` wrote.
        device: Where it runs.
        dtype: Type of the large weights; `None` takes bf16 where the hardware has it.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        InputError: If the device is unknown or not there.
        FileFormatError: If a file is missing, truncated, tampered with, or of another kind or version.
    """
    target = _check_device(device)
    if str(name_or_folder) == "embedded":
        with as_file(files("mirage_sim.embedded")) as folder:
            model = load_folder(folder)
    else:
        model = load_folder(Path(name_or_folder))
    model.requires_grad_(False).eval().to(target)
    model.cast(dtype if dtype is not None else default_dtype(target))
    for part in (model.codec, model.refiner, model.depth_head):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _check_device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'device must be "cpu", "cuda" or "cuda:N", got {device!r}') from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f'device must be one that this machine has, got {device!r} without a CUDA device; use "cpu"'
        )
    return target


def load_folder(folder: Path) -> WorldModel:
    """Read a folder into a float32 model on the CPU, to train it further or to set it up for generation.

    Args:
        folder: What `WorldModel.save` wrote.

    Returns:
        The model.

    Raises:
        FileFormatError: If a file is missing, truncated, tampered with, or of another kind or version.
    """
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise FileFormatError(f"name_or_folder must hold {path.name}, got {folder} without it")
    try:
        text = json.loads(config_path.read_text())
        kind, version = text["kind"], text["schema_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise FileFormatError(f"{config_path} must be the JSON of a world model, got {error!r}") from error
    if (kind, version) != (KIND, SCHEMA_VERSION):
        raise FileFormatError(
            f"{config_path} must be {KIND} version {SCHEMA_VERSION}, got {kind} version {version}"
        )
    digest = hashlib.sha256(weights_path.read_bytes()).hexdigest()
    if digest != text["sha256"]:
        raise FileFormatError(
            f"{weights_path} must have sha256 {text['sha256']}, got {digest}: it is truncated or changed"
        )
    model = WorldModel(config_from_dict(text["config"]))
    try:
        tensors = load_file(weights_path)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise FileFormatError(f"{weights_path} does not fit {config_path}: {error}") from error
    model.weights_hash = digest
    return model
