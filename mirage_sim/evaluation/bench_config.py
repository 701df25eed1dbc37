"""Bench config: what benchmarks measure, checked without torch, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from mirage_sim.arguments import check_at_least
from mirage_sim.errors import InputError
from mirage_sim.evaluation.config import LABELS, check_names
from mirage_sim.model.config import CHUNK, PROMPT, STEPS, WAN_5B, GeneratorConfig, check_offload

PRESETS = ("embedded", "full-size")


@dataclass(frozen=True)
class StepBenchConfig:
    """How steps are timed.

    Attributes:
        steps: Timed steps of each setting.
        warm_up: Steps before them, which fill the memory and the caches.
        vector: Worlds of the vector setting.
        seed: Decides walks and noise.
    """

    steps: int = 60
    warm_up: int = 20
    vector: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.steps, self.vector) < 1 or min(self.warm_up, self.seed) < 0:
            raise InputError(f"steps and vector must be at least 1, warm_up and seed at least 0, got {self}")


@dataclass(frozen=True)
class ReadBenchConfig:
    """How reads are timed.

    Attributes:
        sizes: Entries in memory.
        repeats: Timed reads of each kind and size.
        channels: Channels of a token.
        height: Rows of cells.
        width: Columns of cells.
        seed: Decides the cloud.
    """

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    repeats: int = 9
    channels: int = 16
    height: int = 16
    width: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(*self.sizes, self.repeats, self.channels, self.height, self.width) < 1 or self.seed < 0:
            raise InputError(f"sizes, repeats, channels, height and width must be at least 1, got {self}")


@dataclass(frozen=True)
class MemoryBenchConfig:
    """What is timed.

    Attributes:
        preset: "embedded" (the whole step) or "full-size" (704x1280, the conditioning path alone).
        methods: Names of the methods, see `LABELS`.
        chunks: Chunks of 32 frames.
        one_place: Chunks after which the way is gone back, and on and on; 0 for a way without end.
        index: Scene of the test split.
        seed: Decides the way and the noise.
        encode_frames: Frames of a chunk's 33 that the full-size codec encodes, 1 + 4k; the time is scaled up
            to all of them. 0 encodes none.
    """

    preset: str = "embedded"
    methods: tuple[str, ...] = tuple(LABELS)
    chunks: int = 5
    one_place: int = 0
    index: int = 0
    seed: int = 0
    encode_frames: int = 33

    def __post_init__(self) -> None:
        """Check names and sizes."""
        if self.preset not in PRESETS:
            raise InputError(f"preset must be one of {PRESETS}, got {self.preset!r}")
        check_names("methods", self.methods, sorted(LABELS))
        if self.encode_frames not in (0, *range(1, 34, 4)):
            raise InputError(f"encode_frames must be 0 or 1 + 4k up to 33, got {self.encode_frames}")
        if self.chunks < 1 or min(self.one_place, self.index, self.seed) < 0:
            raise InputError(f"chunks must be at least 1, one_place, index and seed at least 0, got {self}")


@dataclass(frozen=True)
class CountsConfig:
    """What is counted.

    Attributes:
        generator: Shape of backbone and branch.
        height: Rows of a picture.
        width: Columns.
        lengths: Latent frames of a target, the last one of the step before included.
        references: Numbers of earlier views.
        preceding: Latent frames before the target.
        prompt: Tokens of a prompt.
        steps: Passes of a step.
        ranks: Of the adapters.
    """

    generator: GeneratorConfig = field(default_factory=lambda: WAN_5B)
    height: int = 704
    width: int = 1280
    lengths: tuple[int, ...] = tuple(range(1, 10))
    references: tuple[int, ...] = (0, 4)
    preceding: int = 2
    prompt: int = PROMPT
    steps: int = 20
    ranks: tuple[int, ...] = (32, 64)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.lengths or not self.references:
            raise InputError(
                f"lengths and references must not be empty, got {self.lengths} and {self.references}"
            )
        if min(*self.lengths, *self.ranks, self.prompt, self.steps) < 1:
            raise InputError(f"lengths, ranks, prompt and steps must be at least 1, got {self}")
        if min(self.preceding, *self.references) < 0:
            raise InputError(f"references and preceding must be at least 0, got {self}")
        if min(self.height, self.width) < 32 or self.height % 32 or self.width % 32:
            raise InputError(f"height and width must be multiples of 32, got {self.height}x{self.width}")


@dataclass(frozen=True)
class SizeBenchConfig:
    """What is timed.

    Attributes:
        lengths: Latent frames of a step; each is four pictures.
        steps: Passes of a step.
        size: Rows and columns of a picture.
        chunks: Steps of a world; the first is left out of the figures.
        compiled: Whether the blocks are compiled.
        offload: What waits in the host's memory, see `model/offload.py`.
        tiling: Whether pictures are decoded in tiles.
        attention: See `Generator.set_attention`; "native": by PyTorch.
        device: Where it runs.
        seed: Of weights and noise.
        generator: Shape of the network.
    """

    lengths: tuple[int, ...] = (CHUNK,)
    steps: tuple[int, ...] = (STEPS,)
    size: tuple[int, int] = (704, 1280)
    chunks: int = 4
    compiled: bool = False
    offload: str | None = None
    tiling: bool = False
    attention: str = "native"
    device: str = "cuda"
    seed: int = 0
    generator: GeneratorConfig = field(default_factory=lambda: WAN_5B)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.lengths or not self.steps or min(*self.lengths, *self.steps) < 1:
            raise InputError(f"lengths and steps must be at least 1, got {self.lengths} and {self.steps}")
        if self.chunks < 2:
            raise InputError(f"chunks must be at least 2, the first being left out, got {self.chunks}")
        height, width = self.size
        if min(height, width) < 32 or height % 32 or width % 32:
            raise InputError(f"size must be multiples of 32, got {height}x{width}")
        check_at_least("seed", self.seed, 0)
        check_offload(self.offload, self.device, self.compiled)
