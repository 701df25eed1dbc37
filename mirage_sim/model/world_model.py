"""World model: codec, resampler, generator, refiner, depth head and sampler settings.

The embedded model has all of them, in a folder of `model.json` (kind, version, shapes, hash of the weights)
and `model.safetensors`. The full-size model has codec and generator; depth is estimated, prompts are encoded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.files import made_folder, whole_file
from mirage_sim.geometry import make_intrinsics
from mirage_sim.memory import MemoryConfig
from mirage_sim.model.autoencoder import EmbeddedCodecConfig
from mirage_sim.model.codec import EmbeddedCodec, WanCodec
from mirage_sim.model.config import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    GeneratorConfig,
    SamplerConfig,
    condition_channels,
)
from mirage_sim.model.depth_head import DepthHead, DepthHeadConfig, LatentDepth
from mirage_sim.model.generator import Generator
from mirage_sim.model.refiner import Refiner, RefinerConfig
from mirage_sim.model.resampler import Resampler, ResamplerConfig
from mirage_sim.perception.protocol import DepthEstimator, Segmenter
from mirage_sim.text.encoder import TextEncoder
from mirage_sim.torch_state import own_torch_state

KIND = "mirage_sim.world_model"
SCHEMA_VERSION = 1
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
        overlap: Latent frames before the target, after `preceding`, that are a clean part of it: 0 or 1.
        hint_preceding: Whether the memory is read for preceding frames, too, and hinted at there.
        hint_scale: Factor of what the memory branch adds to the backbone.
        prompt_tokens: Tokens of a prompt that the generator attends to; 0: it attends to the camera's motion.
        references: Earlier views, chosen by 3D overlap, that the generator sees.
        extras: Whether the condition tells offset, scale, view and depth beside the latents.
        max_depth_spread: Tokens whose depth is less certain than this (in log metres) are not remembered.
        codec: Shape of the embedded codec; `None` for one that is given.
        generator: Shape of the generator.
        depth_head: Shape of the depth head; `None` without one.
        resampler: Shape of the resampler; `None` without one: known cells start as they were read.
        refiner: Shape of the refiner; `None` without one.
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
    overlap: int = 0
    hint_preceding: bool = False
    hint_scale: float = 1.0
    prompt_tokens: int = 0
    references: int = 0
    extras: bool = True
    max_depth_spread: float = 0.25
    codec: EmbeddedCodecConfig | None = field(default_factory=EmbeddedCodecConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    depth_head: DepthHeadConfig | None = field(default_factory=DepthHeadConfig)
    resampler: ResamplerConfig | None = field(default_factory=ResamplerConfig)
    refiner: RefinerConfig | None = field(default_factory=RefinerConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    memory: MemoryConfig = field(default_factory=lambda: MemoryConfig(channels=32))

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        parts = (self.codec, self.generator, self.depth_head, self.resampler, self.refiner, self.memory)
        channels = {part.channels for part in parts if part is not None}
        if len(channels) != 1:
            raise InputError(
                "codec, generator, depth_head, resampler, refiner and memory must share channels, "
                f"got {channels}"
            )
        ours, published = condition_channels(self.generator.channels), 2 * self.generator.channels
        if self.generator.condition_channels not in (ours, published):
            raise InputError(
                f"generator.condition_channels must be {ours}, or {published} as published, "
                f"got {self.generator.condition_channels}"
            )
        if self.resampler is not None and self.published_condition:
            raise InputError(f"resampler must be None where the condition has {published} channels")
        if min(self.segment_length, self.preceding) < 1 or min(self.references, self.prompt_tokens) < 0:
            raise InputError(
                "segment_length and preceding must be at least 1, references and prompt_tokens at least 0, "
                f"got {self.segment_length}, {self.preceding}, {self.references} and {self.prompt_tokens}"
            )
        if not 0.0 <= self.hint_scale < math.inf:
            raise InputError(f"hint_scale must be a finite number of at least 0, got {self.hint_scale}")
        if self.overlap not in (0, 1):
            raise InputError(f"overlap must be 0 or 1, got {self.overlap}")
        if self.hint_preceding and not self.preceding_with_memory:
            raise InputError("hint_preceding must be False where preceding_with_memory is False")

    @property
    def published_condition(self) -> bool:
        """Whether the branch sees a constant beside what was read, as published, and no geometry."""
        return self.generator.condition_channels == 2 * self.generator.channels

    @property
    def before(self) -> int:
        """Latent frames that a segment sees of those before it."""
        return self.preceding + self.overlap


def check_settings(argument: str, settings: Mapping[str, Any]) -> str:
    """Raise unless all keys are fields of `WorldModelConfig`; tell what to say if a value does not fit.

    Args:
        argument: Whose keys they are.
        settings: Fields that are to differ.

    Returns:
        The argument, what it may hold, and what it holds.

    Raises:
        InputError: If one is unknown.
    """
    known = [item.name for item in fields(WorldModelConfig)]
    told = f"{argument} must be among {known}, got {sorted(settings)}"
    if not set(settings) <= set(known):
        raise InputError(told)
    return told


@contextmanager
def settings_checked(argument: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """Name the argument and what it may hold where settings turn out to be no fields of the config.

    Args:
        argument: Whose keys they are.
        settings: Fields of `WorldModelConfig` that are to differ.

    Raises:
        InputError: If one is unknown.
    """
    told = check_settings(argument, settings)
    try:
        yield
    except TypeError as error:
        raise InputError(f"{told}: {error}") from error


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
        if kind is WorldModelConfig and key in nested and value is not None:
            parsed[key] = config_from_dict(value, nested[key])
        else:
            parsed[key] = tuple(value) if isinstance(value, list) else value
    return kind(**parsed)


class WorldModel(nn.Module):
    """The networks of one world model; several worlds may share it.

    `depth_head`, `resampler` and `refiner` are `None` where the config has none.
    """

    depth_head: DepthHead
    resampler: Resampler
    refiner: Refiner

    def __init__(
        self,
        config: WorldModelConfig | None = None,
        codec: WanCodec | None = None,
        generator: Generator | None = None,
        estimator: DepthEstimator | None = None,
        segmenter: Segmenter | None = None,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        """Build the networks that are not given, with random weights.

        Args:
            config: Shapes and settings.
            codec: In the place of an embedded one.
            generator: Of the config's shape.
            estimator: Depth in the place of a depth head.
            segmenter: Tells sky and what may move, which is not remembered.
            text_encoder: Encodes prompts.

        Raises:
            InputError: If parts are missing, or do not fit each other.
        """
        super().__init__()
        self.config = c = config if config is not None else WorldModelConfig()
        if (codec is None) == (c.codec is None):
            raise InputError("codec must be given where the config has none, and only there")
        if (estimator is None) == (c.depth_head is None):
            raise InputError("estimator must be given where the config has no depth_head, and only there")
        self.codec = codec if codec is not None else EmbeddedCodec(c.codec)
        self.generator = generator if generator is not None else Generator(c.generator)
        shapes = (self.generator.config, self.codec.channels)
        if shapes != (c.generator, c.generator.channels):
            raise InputError(f"generator and codec must be of {c.generator}, got {shapes}")
        self.register_module("depth_head", DepthHead(c.depth_head) if c.depth_head else None)
        self.register_module("resampler", Resampler(c.resampler) if c.resampler else None)
        self.register_module("refiner", Refiner(c.refiner) if c.refiner else None)
        self.estimator, self.segmenter, self.text_encoder = estimator, segmenter, text_encoder
        self.weights_hash = ""
        self._constants: dict[int, Tensor] = {}
        self._check_size()

    def _check_size(self) -> None:
        steps = [size * self.codec.spatial_stride for size in self.config.generator.patch_hw]
        height, width = self.config.height, self.config.width
        if min(height, width) < 1 or height % steps[0] or width % steps[1]:
            raise InputError(f"height and width must be multiples of {steps}, got {height} and {width}")

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
        return self.codec.temporal_stride

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.codec.latent_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the large weights."""
        return self.generator.backbone.patch_embedding.weight.dtype

    @property
    def depth_estimator(self) -> DepthEstimator:
        """What tells the depth of a view: the estimator that was given, or the depth head."""
        return self.estimator or LatentDepth(self.depth_head, self.config.max_depth_spread)

    @property
    def needs_frames(self) -> bool:
        """Whether depth and masks are told from pictures, so that every step decodes."""
        return self.depth_estimator.needs_frames or self.segmenter is not None

    def intrinsics(self) -> Tensor:
        """Default intrinsics [3, 3] in pixels of the model's images."""
        return make_intrinsics(self.config.height, self.config.width, self.config.fov_x_deg)

    def with_settings(self, **changes: Any) -> WorldModel:
        """Return a model that shares these weights under other settings (sampler, references, extras, …)."""
        other = WorldModel.__new__(WorldModel)
        nn.Module.__init__(other)
        other.config = replace(self.config, **changes)
        for name, part in self._modules.items():
            other.register_module(name, part)
        for name in ("estimator", "segmenter", "text_encoder", "weights_hash"):
            setattr(other, name, getattr(self, name))
        other._constants = {}
        other._check_size()
        return other

    def constant(self, frames: int) -> Tensor:
        """The half of the published condition that is always the same: the codec's latents of a white video.

        Args:
            frames: Latent frames.

        Returns:
            float32 [frames, C, h, w], computed once.

        Source: paper's reference implementation, input of the memory branch.
        """
        if frames not in self._constants:
            pictures = 1 + self.codec.temporal_stride * (frames - 1)
            white = torch.ones(
                1, pictures, 3, self.config.height, self.config.width, device=self.device, dtype=torch.float32
            )
            self._constants[frames] = self.codec.encode(white)[0].float()
        return self._constants[frames]

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

        Raises:
            FileWriteError: If it cannot be written; then nothing new is left behind.
        """
        tensors = {}
        for name, tensor in self.state_dict().items():
            dtype = torch.float32 if stays_float32(name) else torch.bfloat16
            tensors[name] = tensor.detach().cpu().to(dtype).contiguous()
        # The weights' file is the inner one: it takes its place first, when both are written.
        with (
            made_folder(folder),
            whole_file(folder / CONFIG_FILE) as config,
            whole_file(folder / WEIGHTS_FILE) as weights,
        ):
            save_file(tensors, weights)
            text = {
                "kind": KIND,
                "schema_version": SCHEMA_VERSION,
                "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
                "config": asdict(self.config),
            }
            config.write_text(json.dumps(text, indent=2) + "\n")


def stays_float32(name: str) -> bool:
    """Whether the tensor of this name is never cast: norms, tables and statistics outside the autoencoder."""
    return any(part in name for part in KEEP_FLOAT32) and not name.startswith("codec.autoencoder")


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


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
            raise FileFormatError(f"{folder} must hold {path.name} of a world model, got a folder without it")
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
    with own_torch_state(), torch.random.fork_rng(devices=[]):  # weights begin at random
        model = WorldModel(config_from_dict(text["config"]))
    try:
        tensors = load_file(weights_path)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise FileFormatError(f"{weights_path} does not fit {config_path}: {error}") from error
    model.weights_hash = digest
    return model
