"""Config: how stages are trained, checked without torch, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mirage_sim.arguments import check_at_least, check_positive
from mirage_sim.errors import InputError
from mirage_sim.model.config import WAN_5B, GeneratorConfig, LoRAConfig
from mirage_sim.scenes.splits import first_seeds

BENCH_STAGES = ("branch", "lora")


@dataclass(frozen=True)
class StageConfig:
    """How one stage is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Samples a step and process.
        learning_rate: Peak of the schedule (linear warm-up, cosine decay to 5 %).
        warmup: Steps of warm-up.
        weight_decay: AdamW's.
        clip: Largest gradient norm.
        ema: Decay of the averaged weights that are exported; 0 exports the last ones.
        seed: Seeds every batch.
        checkpoint_seconds: Time between two checkpoints; they fall on steps that are logged.
        log_every: Steps between two lines of the log.
        validate_every: Steps between two validations; 0 for none.
        accumulate: Batches of every process whose gradients are added up to a step.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    checkpoint_seconds: float = 120.0
    log_every: int = 20
    validate_every: int = 500
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.steps, self.batch_size, self.accumulate) < 1:
            raise InputError(
                "steps, batch_size and accumulate must be at least 1, "
                f"got {self.steps}, {self.batch_size} and {self.accumulate}"
            )
        if self.log_every < 1 or self.validate_every < 0:
            raise InputError(
                "log_every must be at least 1 and validate_every at least 0, "
                f"got {self.log_every} and {self.validate_every}"
            )
        check_positive("learning_rate", self.learning_rate)
        check_at_least("seed", self.seed, 0)
        if not 0 <= self.ema < 1:
            raise InputError(f"ema must be in [0, 1), got {self.ema}")


@dataclass(frozen=True)
class ClipsConfig:
    """What is recorded.

    Attributes:
        split: "train", "validation" or "test".
        scenes: Number of scenes, taken from the start of the split.
        walks: Clips in each scene.
        steps: Frames in each clip.
        size: Image height and width in pixels.
        fov_x_deg: Horizontal field of view in degrees.
        depth_stride: Pixels per side of the block that one stored depth stands for.
        shards: Files; each is written whole or not at all.
    """

    split: str = "train"
    scenes: int = 1600
    walks: int = 1
    steps: int = 48
    size: int = 128
    fov_x_deg: float = 75.0
    depth_stride: int = 8
    shards: int = 40

    def __post_init__(self) -> None:
        """Check the split and its size."""
        first_seeds(self.split, self.scenes, "scenes")


@dataclass(frozen=True)
class SequencesConfig:
    """How sequences are drawn.

    Attributes:
        prompts: Folder of stored embeddings, `<video>.safetensors` each with the video's name quoted as in an
            address, or one file for all; `None`: the empty prompt.
        drop_prompt: Share of sequences that are told the empty prompt.
    """

    prompts: Path | None = None
    drop_prompt: float = 0.1

    def __post_init__(self) -> None:
        """Check ranges and the path."""
        if not 0.0 <= self.drop_prompt <= 1.0:
            raise InputError(f"drop_prompt must be in [0, 1], got {self.drop_prompt}")
        if self.prompts is not None and not self.prompts.exists():
            raise InputError(f"prompts must be a file or a folder of stored embeddings, got {self.prompts}")


@dataclass(frozen=True)
class FullSizeConfig:
    """How a stage at full size is run.

    Attributes:
        lora: Size of the adapters.
        sequences: How sequences are drawn.
        shard: Whether the weights are divided among the processes, or each holds all of them.
        recompute: Whether the blocks' activations are computed again on the way back, rather than kept.
    """

    lora: LoRAConfig = field(default_factory=lambda: LoRAConfig(rank=32, alpha=32, dropout=0.05))
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    shard: bool = False
    recompute: bool = True


@dataclass(frozen=True)
class TrainBenchConfig:
    """What is timed.

    Attributes:
        stages: "branch", "lora".
        size: Rows and columns of a picture.
        batch_size: Sequences a step.
        steps: Steps; the first is left out of the figures.
        recompute: Whether activations are computed again on the way back.
        device: Where it runs.
        seed: Of weights and clips.
        generator: Shape of the network.
    """

    stages: tuple[str, ...] = BENCH_STAGES
    size: tuple[int, int] = (704, 1280)
    batch_size: int = 1
    steps: int = 4
    recompute: bool = True
    device: str = "cuda"
    seed: int = 0
    generator: GeneratorConfig = field(default_factory=lambda: WAN_5B)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.stages or not set(self.stages) <= set(BENCH_STAGES):
            raise InputError(f"stages must be among {BENCH_STAGES}, got {self.stages}")
        check_at_least("seed", self.seed, 0)
        if self.steps < 2 or self.batch_size < 1:
            raise InputError(
                "steps must be at least 2, the first being left out, and batch_size 1, "
                f"got {self.steps} and {self.batch_size}"
            )
