"""Settings: what `gym.make("Mirage/Explore-v0", ...)` and later versions accept, checked in one place."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mirage_sim.envs.window import display_available
from mirage_sim.errors import InputError, InputTypeError, StateError
from mirage_sim.threads import check_threads

if TYPE_CHECKING:
    from mirage_sim.model.world_model import WorldModel

ACTION_MODES = ("relative", "pose", "discrete")
OBSERVATIONS = ("rgb", "cam2world", "depth", "coverage", "latents")
RENDER_MODES = ("rgb_array", "human")


@dataclass(frozen=True)
class ExploreConfig:
    """Arguments of the environment.

    Attributes:
        world_model: "embedded", a folder that `WorldModel.save` wrote, or a model that is loaded already.
        device: Where model and memory live; an already loaded model stays where it is.
        action_mode: "relative", "pose" or "discrete".
        observations: Keys of the observation, each once; without "rgb" and a render mode nothing is decoded.
        memory: Whether the memory is used.
        collide: Whether remembered surfaces stop the camera.
        render_mode: `None`, "rgb_array" or "human".
        model_settings: Numbers of the model's `WorldModelConfig` that are to differ, such as `height`.
        prompt: What is to be seen, for a model that attends to text: text, or a stored embedding's file.
        threads: How many torch uses while the environment computes; by default the cores that the process may
            use, and 1 in a worker process.
    """

    world_model: str | Path | WorldModel = "embedded"
    device: str = "cpu"
    action_mode: str = "relative"
    observations: Sequence[str] = ("rgb", "cam2world")
    memory: bool = True
    collide: bool = False
    render_mode: str | None = None
    prompt: str | Path | None = None
    model_settings: Mapping[str, int | float] | None = None
    threads: int | None = None

    version: ClassVar[int] = 0
    """Whose rules hold: those of `Mirage/Explore-v<version>`."""

    def __post_init__(self) -> None:
        """Check everything that needs no model."""
        if not isinstance(self.world_model, str | Path) and not _is_world_model(self.world_model):
            raise InputTypeError(
                f"world_model must be a name, a folder or a WorldModel, got {type(self.world_model).__name__}"
            )
        if self.action_mode not in ACTION_MODES:
            raise InputError(f"action_mode must be one of {list(ACTION_MODES)}, got {self.action_mode!r}")
        if isinstance(self.observations, str) or not isinstance(self.observations, Sequence):
            raise InputTypeError(
                f'observations must be a sequence of names such as ("rgb",), got {self.observations!r}'
            )
        names = tuple(self.observations)
        known = all(isinstance(name, str) and name in OBSERVATIONS for name in names)
        if not names or not known or len(set(names)) != len(names):
            raise InputError(
                f"observations must be some of {list(OBSERVATIONS)}, each once, got {list(names)}"
            )
        object.__setattr__(self, "observations", names)
        for name in ("memory", "collide"):
            if not isinstance(getattr(self, name), bool):
                raise InputTypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        check_threads(self.threads)
        settings = self.model_settings if self.model_settings is not None else {}
        if not isinstance(settings, Mapping) or not all(
            isinstance(n, int | float) for n in settings.values()
        ):
            raise InputTypeError(f"model_settings must be a dict of numbers, got {settings!r}")
        if self.prompt is not None and not isinstance(self.prompt, str | Path):
            raise InputTypeError(f"prompt must be a text or a Path, got {type(self.prompt).__name__}")
        if self.version == 0 and self.collide and not self.memory:
            raise InputError("collide must be False where memory is False: only what is remembered can stop")
        if self.render_mode is not None and self.render_mode not in RENDER_MODES:
            raise InputError(
                f"render_mode must be None or one of {list(RENDER_MODES)}, got {self.render_mode!r}"
            )
        if self.render_mode == "human" and not display_available():
            raise StateError(
                'render_mode "human" must have a display to open a window on, got none; use "rgb_array"'
            )

    @property
    def stops(self) -> bool:
        """Whether discrete actions include "stop"."""
        return True

    @property
    def collides(self) -> bool:
        """Whether a step asks the memory what stands in the way."""
        return self.collide and self.memory

    @property
    def decodes(self) -> bool:
        """Whether a step decodes its latents."""
        return "rgb" in self.observations or self.render_mode is not None


def _is_world_model(value: Any) -> bool:
    """Whether this is a loaded model, without importing its class: where it is none, nobody may have."""
    module = sys.modules.get("mirage_sim.model.world_model")
    return module is not None and isinstance(value, module.WorldModel)


@dataclass(frozen=True)
class ExploreConfigV1(ExploreConfig):
    """Arguments of `Mirage/Explore-v1`, with its defaults.

    Attributes:
        collide: Whether remembered surfaces stop the agent; without a memory nothing does.
        stop_action: Whether discrete actions include "stop", which ends the episode.
    """

    collide: bool = True
    stop_action: bool = False

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check everything that needs no model."""
        super().__post_init__()
        if not isinstance(self.stop_action, bool):
            raise InputTypeError(f"stop_action must be True or False, got {self.stop_action!r}")

    @property
    def stops(self) -> bool:
        """Whether discrete actions include "stop"."""
        return self.stop_action


def available_render_modes() -> list[str]:
    """Render modes that work on this machine: "human" needs a display."""
    return [mode for mode in RENDER_MODES if mode != "human" or display_available()]
