"""Config: what evaluations measure, checked without torch, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirage_sim.errors import InputError
from mirage_sim.scenes.splits import first_seeds

LABELS = {
    "latent": "latent memory",
    "colours-1cm": "colour points, 1 cm",
    "colours-3cm": "colour points, 3 cm",
    "appended": "appended tokens",
    "retrieved": "retrieved frames only",
    "none": "last frames only",
}
"""Methods that are compared, and what tables call them."""
REENTRY = "reentry"
WAY_NAMES = ("out-32", "out-64", "out-128", "yaw", "abca", "laps")
ALL_WAYS = (*WAY_NAMES, REENTRY)
VARIANT_NAMES = (
    "default",
    "depth from the simulator",
    "depth wrong by 5 %",
    "depth wrong by 10 %",
    "fusion off",
    "extra channels off",
    "tokens in 8 bit",
    "edge filter off",
    "free-space filter off",
    "no glimpses",
    "one reference",
    "known cells dreamt anew",
    "no refiner",
    *(f"{steps} sampling steps" for steps in (2, 4, 8, 20)),
    *(f"{steps} refining passes" for steps in (1, 4, 8, 20)),
)
"""Names of `VARIANTS`, in their order."""


def check_names(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise unless at least one name is given and all are known.

    Args:
        name: Of the argument.
        given: What came.
        known: What may come, in the order in which it is told.

    Raises:
        InputError: If a name is unknown or there is none.
    """
    known = list(known)
    unknown = sorted(set(given) - set(known))
    if unknown or not given:
        raise InputError(f"{name} must be among {known}, got {unknown or 'none'}")


@dataclass(frozen=True)
class WorldsConfig:
    """Which worlds, and how far they are walked.

    Attributes:
        split: "train", "validation" or "test".
        worlds: Number of worlds, from the start of the split.
        seed: Decides first poses, paths and the noise of generation.
        steps: Steps of the path out.
        yaw_degrees: Angle of the turn.
        yaw_step_degrees: Angle of one step of the turn.
        shortest_step: Least length of a step out, metres.
        longest_step: Greatest length of a step out, metres.
        turn_degrees: Greatest turn in one step out.
    """

    split: str = "test"
    worlds: int = 32
    seed: int = 0
    steps: int = 32
    yaw_degrees: float = 90.0
    yaw_step_degrees: float = 5.0
    shortest_step: float = 0.08
    longest_step: float = 0.12
    turn_degrees: float = 1.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        first_seeds(self.split, self.worlds)
        if self.steps < 1 or self.seed < 0:
            raise InputError(
                f"steps must be at least 1 and seed at least 0, got {self.steps} and {self.seed}"
            )
        if not 0 < self.yaw_step_degrees <= abs(self.yaw_degrees):
            raise InputError(
                f"yaw_step_degrees must be in (0, {self.yaw_degrees}], got {self.yaw_step_degrees}"
            )
        if not 0 < self.shortest_step <= self.longest_step:
            raise InputError(
                f"step lengths must be increasing, got {self.shortest_step}, {self.longest_step}"
            )

    @property
    def yaw_steps(self) -> int:
        """Steps of the turn, one way."""
        return round(abs(self.yaw_degrees) / self.yaw_step_degrees)


@dataclass(frozen=True)
class FramesConfig:
    """Which true frames.

    Attributes:
        split: "train", "validation" or "test".
        worlds: Number of scenes, from the start of the split.
        frames: Views of each scene, at poses drawn by seed.
        seed: Decides the poses.
        sheet_worlds: Rows of the contact sheet.
    """

    split: str = "test"
    worlds: int = 32
    frames: int = 8
    seed: int = 0
    sheet_worlds: int = 16

    def __post_init__(self) -> None:
        """Check the ranges."""
        first_seeds(self.split, self.worlds)
        if min(self.frames, self.sheet_worlds) < 1 or self.seed < 0:
            raise InputError(f"frames and sheet_worlds must be at least 1 and seed at least 0, got {self}")


@dataclass(frozen=True)
class DepthConfig:
    """Which true frames.

    Attributes:
        split: "train", "validation" or "test".
        worlds: Number of scenes, from the start of the split.
        pairs: Pairs of views of each scene.
        gap: Steps of a walk between the view that the memory holds and the one that is judged.
        seed: Decides the walks.
    """

    split: str = "test"
    worlds: int = 32
    pairs: int = 8
    gap: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        first_seeds(self.split, self.worlds)
        if min(self.pairs, self.gap) < 1 or self.seed < 0:
            raise InputError(f"pairs and gap must be at least 1 and seed at least 0, got {self}")


@dataclass(frozen=True)
class LoopConfig:
    """How loops are walked.

    Attributes:
        worlds: Which worlds and paths.
        every: Steps between the poses whose two visits are decoded and compared.
        batch: Worlds generated at once; the figures do not depend on it.
        sheet_worlds: Rows of each contact sheet.
    """

    worlds: WorldsConfig
    every: int = 2
    batch: int = 8
    sheet_worlds: int = 16

    def __post_init__(self) -> None:
        """Check the sizes."""
        if min(self.every, self.batch, self.sheet_worlds) < 1:
            raise InputError(f"every, batch and sheet_worlds must be at least 1, got {self}")


@dataclass(frozen=True)
class RealismConfig:
    """What is judged.

    Attributes:
        worlds: Which worlds and paths.
        every: Steps between judged frames.
        diversity_worlds: First frames that are continued with several seeds.
        seeds: Seeds for each of them.
        batch: Worlds generated at once; the figures do not depend on it.
        sheet_worlds: Rows of the contact sheet.
    """

    worlds: WorldsConfig
    every: int = 4
    diversity_worlds: int = 8
    seeds: int = 4
    batch: int = 8
    sheet_worlds: int = 16

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.seeds < 2:
            raise InputError(f"seeds must be at least 2, got {self.seeds}")
        if min(self.every, self.diversity_worlds, self.batch, self.sheet_worlds) < 1:
            raise InputError(
                f"every, diversity_worlds, batch and sheet_worlds must be at least 1, got {self}"
            )


@dataclass(frozen=True)
class WalkRunConfig:
    """Which walk.

    Attributes:
        split: "train", "validation" or "test".
        index: Scene of the split.
        seed: Decides the way and the noise.
        steps: Steps of the walk.
        laps: How often it leads through the flat and back.
        window: Steps at the start and at the end that are compared.
        sheet_every: Steps between pictures of the contact sheet; a twentieth of the walk if 0.
        memory: Whether the memory is used.
    """

    split: str = "test"
    index: int = 0
    seed: int = 0
    steps: int = 1000
    laps: int = 2
    window: int = 100
    sheet_every: int = 0
    memory: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        first_seeds(self.split, self.index + 1, "index, counted from 1,")
        if self.seed < 0 or self.sheet_every < 0:
            raise InputError(f"seed and sheet_every must be at least 0, got {self.seed}, {self.sheet_every}")
        if not 0 < 2 * self.laps <= self.steps:
            raise InputError(f"laps must be positive and at most half of {self.steps} steps, got {self.laps}")
        if not 0 < 2 * self.window <= self.steps:
            raise InputError(
                f"window must be positive and at most half of {self.steps} steps, got {self.window}"
            )


@dataclass(frozen=True)
class ConsistencyConfig:
    """What is compared.

    Attributes:
        worlds: Which worlds.
        methods: Names of the methods, see `LABELS`.
        ways: Names of the ways, see `ALL_WAYS`.
        every: Steps between compared poses.
        batch: Worlds generated at once; the figures do not depend on it.
    """

    worlds: WorldsConfig
    methods: tuple[str, ...] = tuple(LABELS)
    ways: tuple[str, ...] = ALL_WAYS
    every: int = 4
    batch: int = 8

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_names("methods", self.methods, sorted(LABELS))
        check_names("ways", self.ways, sorted(ALL_WAYS))
        if min(self.every, self.batch) < 1:
            raise InputError(f"every and batch must be at least 1, got {self.every} and {self.batch}")


@dataclass(frozen=True)
class AblationsConfig:
    """What is compared.

    Attributes:
        worlds: Which worlds.
        variants: Names, see `VARIANT_NAMES`.
        ways: Names, see `ALL_WAYS`.
        every: Steps between compared poses.
        batch: Worlds generated at once.
    """

    worlds: WorldsConfig
    variants: tuple[str, ...] = VARIANT_NAMES
    ways: tuple[str, ...] = ("out-32", "yaw")
    every: int = 4
    batch: int = 8

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_names("variants", self.variants, VARIANT_NAMES)
        check_names("ways", self.ways, ALL_WAYS)
        if min(self.every, self.batch) < 1:
            raise InputError(f"every and batch must be at least 1, got {self.every} and {self.batch}")


@dataclass(frozen=True)
class MovingConfig:
    """What is looked at.

    Attributes:
        split: Split of the scenes.
        worlds: Scenes, from the start of the split.
        steps: Views that are written.
        seconds: Between two views.
        degrees: How far the camera turns, there and back.
        seed: Decides pose and movers.
    """

    split: str = "test"
    worlds: int = 32
    steps: int = 24
    seconds: float = 0.25
    degrees: float = 40.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        first_seeds(self.split, self.worlds)
        if self.steps < 2 or self.steps % 2 or not self.seconds > 0 or self.seed < 0:
            raise InputError(
                f"steps must be even and at least 2, seconds positive, seed at least 0, got {self}"
            )


@dataclass(frozen=True)
class ExploreRunConfig:
    """What is measured.

    Attributes:
        split: Whose flats.
        worlds: Number of flats.
        seed: Of starts, noise and random actions.
        steps: Steps of a walk, and of turning in place.
        random_steps: Random actions in each flat.
        collide: Whether the agent is stopped; without, the judges must find crossings.
    """

    split: str = "train"
    worlds: int = 16
    seed: int = 0
    steps: int = 40
    random_steps: int = 63
    collide: bool = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        first_seeds(self.split, self.worlds)
        for name in ("steps", "random_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrajectoriesConfig:
    """What is evaluated.

    Attributes:
        folder: Holds `<name>.txt` and, beside each, a folder `<name>` of frames named by timestamp.
        methods: Names of the methods, see `LABELS`.
        recovered: Folder of camera files with recovered poses by `<name>-<method>.txt`, or `None`.
        scale: Metres of one unit of length of the files.
        frames: Largest number of frames of a file.
        seed: Of the noise.
    """

    folder: Path
    methods: tuple[str, ...] = ("latent", "none")
    recovered: Path | None = None
    scale: float = 1.0
    frames: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Check names and ranges."""
        check_names("methods", self.methods, sorted(LABELS))
        if not self.scale > 0 or self.frames < 2 or self.seed < 0:
            raise InputError(f"scale must be positive, frames at least 2 and seed at least 0, got {self}")
