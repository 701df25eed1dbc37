"""Starts: where an episode begins: a scene's view, the user's image, the present place or a saved world.

Scenes come from the training split, so that the validation and test flats stay unseen whatever an agent or a
model is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, InputTypeError, check_shape
from mirage_sim.geometry import check_depth, check_intrinsics, check_pose, from_yaw_pitch
from mirage_sim.model.images import check_image
from mirage_sim.model.world_model import WorldModel

Array = np.ndarray[Any, Any]

KNOWN = ("keep_world", "image", "depth", "cam2world", "intrinsics", "world", "scene_seed", "prompt")
EYE_HEIGHT = 1.4


@dataclass(frozen=True)
class StartOptions:
    """What `reset(options=...)` asks for, checked.

    Attributes:
        keep_world: Keep the place and its memory, put the camera back.
        image: First frame, uint8 [H, W, 3].
        depth: Its z-depth in metres, float32 [H, W], 0 unknown.
        cam2world: First camera, float32 [4, 4].
        intrinsics: In pixels, float32 [3, 3].
        world: Folder of a saved world.
        scene_seed: Which flat the first frame shows.
        prompt: What is to be seen: a text, or the file of a stored embedding.
    """

    keep_world: bool = False
    image: Array | None = None
    depth: Array | None = None
    cam2world: Tensor | None = None
    intrinsics: Tensor | None = None
    world: Path | None = None
    scene_seed: int | None = None
    prompt: str | Path | None = None


@dataclass(frozen=True)
class FirstFrame:
    """What a world begins from.

    Attributes:
        image: uint8 [H, W, 3].
        depth: float32 [H, W] in metres, or `None` to have it predicted.
        cam2world: float32 [4, 4].
        intrinsics: float32 [3, 3] in pixels.
    """

    image: Array
    depth: Array | None
    cam2world: Tensor
    intrinsics: Tensor


def check_seed(name: str, seed: Any) -> int:
    """Check a seed, which may have any number of digits.

    Args:
        name: Argument name for messages.
        seed: As given.

    Returns:
        The seed as Python's integer.

    Raises:
        InputTypeError: If it is no integer.
        InputError: If it is negative.
    """
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer):
        raise InputTypeError(f"{name} must be an integer, got {seed!r}")
    if seed < 0:
        raise InputError(f"{name} must be at least 0, got {seed}")
    return int(seed)


def parse_options(options: Mapping[str, Any] | None, model: WorldModel) -> StartOptions:
    """Check reset options.

    Args:
        options: As given to `reset`.
        model: Says which image size fits.

    Returns:
        The options.

    Raises:
        InputTypeError: If one has the wrong type.
        InputError: If one is unknown, wrong or does not go with another.
    """
    if options is None:
        return StartOptions()
    if not isinstance(options, Mapping):
        raise InputTypeError(f"options must be a dict, got {type(options).__name__}")
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(str(key) for key in set(given) - set(KNOWN))
    if unknown:
        raise InputError(f"options must be among {list(KNOWN)}, got {unknown}")
    keep = given.get("keep_world", False)
    if not isinstance(keep, bool | np.bool_):
        raise InputTypeError(f"options['keep_world'] must be True or False, got {keep!r}")
    if not keep:
        given.pop("keep_world", None)
    ways = [key for key in ("keep_world", "image", "world", "scene_seed") if key in given]
    if len(ways) > 1:
        raise InputError(f"options must name one way to start, got {ways}")
    way = ways[0] if ways else "scene_seed"
    fitting = {
        "keep_world": {"cam2world"},
        "image": {"depth", "cam2world", "intrinsics", "prompt"},
        "world": set[str](),
        "scene_seed": {"cam2world", "intrinsics", "prompt"},
    }[way]
    lost = sorted(set(given) - {way} - fitting)
    if lost:
        raise InputError(f"options[{lost[0]!r}] must come with another way to start, got it with {way!r}")
    return StartOptions(
        keep_world=bool(keep),
        image=_image(given["image"], model) if "image" in given else None,
        depth=_depth(given["depth"], model) if "depth" in given else None,
        cam2world=_matrix("cam2world", given["cam2world"], 4) if "cam2world" in given else None,
        intrinsics=_matrix("intrinsics", given["intrinsics"], 3) if "intrinsics" in given else None,
        world=_folder(given["world"]) if "world" in given else None,
        scene_seed=check_seed("options['scene_seed']", given["scene_seed"])
        if "scene_seed" in given
        else None,
        prompt=_prompt(given["prompt"]) if "prompt" in given else None,
    )


def first_frame(options: StartOptions, model: WorldModel, rng: np.random.Generator) -> FirstFrame:
    """Make what a new world begins from.

    Args:
        options: The user's image, or the wish for a scene.
        model: Says image size and default intrinsics.
        rng: Draws the flat and the pose in it.

    Returns:
        The first frame; a scene's has its true depth.
    """
    lens = options.intrinsics if options.intrinsics is not None else model.intrinsics().float().cpu()
    if options.image is not None:
        pose = options.cam2world
        if pose is None:
            pose = from_yaw_pitch((0.0, 0.0, EYE_HEIGHT), 0.0).float()
        return FirstFrame(options.image, options.depth, pose, lens)
    from mirage_sim.scenes import TRAIN_SEEDS, make_scene

    drawn = int(rng.integers(TRAIN_SEEDS.start, TRAIN_SEEDS.stop))
    seed = options.scene_seed if options.scene_seed is not None else drawn
    with make_scene(seed) as scene:
        pose = options.cam2world if options.cam2world is not None else scene.sample_pose(rng)
        view = scene.render(pose, lens, (model.config.height, model.config.width))
    depth = view.depth if bool((view.depth > 0).any()) else None
    return FirstFrame(view.rgb, depth, pose, lens)


def _image(image: Any, model: WorldModel) -> Array:
    pixels = check_image("options['image']", image, model.config.height, model.config.width)
    check_shape("options['image']", pixels, [model.config.height, model.config.width, 3])
    return pixels


def _depth(depth: Any, model: WorldModel) -> Array:
    metres = own_floats("options['depth']", depth, torch.float32, "cpu").numpy()
    check_depth("options['depth']", metres)
    check_shape("options['depth']", metres, [model.config.height, model.config.width])
    return np.where(np.isfinite(metres), metres, np.float32(0.0))


def _matrix(key: str, matrix: Any, size: int) -> Tensor:
    name = f"options[{key!r}]"
    own = own_floats(name, matrix, torch.float32, "cpu")
    check = check_pose if size == 4 else check_intrinsics
    check(name, own)
    check_shape(name, own, [size, size])
    return own


def _folder(folder: Any) -> Path:
    if not isinstance(folder, str | Path):
        raise InputTypeError(f"options['world'] must be a folder, got {type(folder).__name__}")
    return Path(folder)


def _prompt(prompt: Any) -> str | Path:
    if not isinstance(prompt, str | Path):
        raise InputTypeError(f"options['prompt'] must be a text or a Path, got {type(prompt).__name__}")
    return prompt
