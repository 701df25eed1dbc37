"""MapAnything: a depth estimator of the package `mapanything`, from a local folder, told the camera.

Every view is a scene of its own, a picture and its intrinsics: `Seen` tells no poses, and its views may be of
several worlds. Run with the package's own class (version 1.1), tiny and with random weights, in an
environment that has the package; elsewhere tests take a stand-in of the same interface. Never run with
published weights.
Source: the package's published code and its paper, Keetha et al., "MapAnything", arXiv 2509.13414.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from mirage_sim.errors import FileFormatError, InputError, MissingExtraError
from mirage_sim.geometry import rescale_intrinsics
from mirage_sim.perception.align import perceive
from mirage_sim.perception.pictures import IMAGENET, Preparation
from mirage_sim.perception.protocol import Perceived, Seen
from mirage_sim.pretrained import read_json

PARTS = ("encoder_config", "info_sharing_config", "pred_head_config", "geometric_input_config")
"""What a MapAnything model's `config.json` holds."""
_NORM = "dinov2"  # what the package calls the mean and deviation of ImageNet
_LONGEST = 518  # pixels of the longer side in training
_NEAR = 0.05  # metres


def holds_map_anything(folder: Path) -> bool:
    """Tell whether a folder's `config.json` is that of a MapAnything model.

    Args:
        folder: A model's.

    Returns:
        Whether it is.

    Raises:
        FileFormatError: If there is no such file.
    """
    return read_json(folder / "config.json").keys() >= set(PARTS)


class MapAnythingModel:
    """A `DepthEstimator` that looks at pictures and knows the camera; what it says is in metres."""

    needs_frames = True

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        far: float = 30.0,
        edge_ratio: float = 1.25,
        longest: int = _LONGEST,
    ) -> None:
        """Load a model.

        Args:
            folder: Where a published model's `config.json` and `model.safetensors` lie.
            device: Where it runs: on a GPU mostly in bf16, as its authors advise, elsewhere in float32.
            far: Metres beyond which nothing counts as a surface.
            edge_ratio: Farthest over nearest depth in a cell from which it is not sure.
            longest: Pixels of the longer side to which pictures are brought.

        Raises:
            FileFormatError: If the folder holds another kind of model, or a damaged one.
            MissingExtraError: If the package is not installed.
        """
        config = read_json(folder / "config.json")
        parts = {name: config.get(name) for name in PARTS}
        if not all(isinstance(part, dict) for part in parts.values()):
            raise FileFormatError(f"{folder / 'config.json'} must hold {PARTS}, got {sorted(config)}")
        norm = config["encoder_config"].get("data_norm_type", _NORM)
        told = str(config["pred_head_config"].get("adaptor_type"))
        if norm != _NORM or "pose" not in told:
            raise FileFormatError(
                f"{folder} must hold a model with data_norm_type {_NORM!r} and an adaptor_type with pose, "
                f"got {norm!r} and {told!r}"
            )
        kind, backbones = _package(folder)
        try:
            with _nothing_fetched(backbones):
                model = kind.from_pretrained(
                    str(folder),
                    local_files_only=True,
                    strict=True,
                    pretrained_checkpoint_path=None,
                    **_without_checkpoints(parts),
                )
        except Exception as error:
            raise FileFormatError(f"{folder} must hold a model for {kind.__name__}, got {error}") from error
        self._model = model.requires_grad_(False).eval().to(device)
        self._patch, self._longest = int(model.encoder.patch_size), longest
        self._far, self._edge_ratio = far, edge_ratio

    @torch.no_grad()
    def say(self, frames: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        """Say inverse depth, and where it is clear.

        Args:
            frames: [N, 3, H, W] in [-1, 1].
            intrinsics: In pixels of the frames, [N, 3, 3].

        Returns:
            In 1 / metres, at least 0, float32 [N, H, W]; and bool [N, H, W], false for sky, glass and such.
        """
        height, width = frames.shape[-2:]
        rows, columns = (
            max(1, round(side * self._longest / max(height, width) / self._patch)) * self._patch
            for side in (height, width)
        )
        lens = rescale_intrinsics(intrinsics.float(), columns / width, rows / height)
        lens[..., :2, 2] -= 0.5  # the package counts from the middle of the first pixel
        view = {
            "img": Preparation(rows, columns, False, 1, *IMAGENET)(frames),  # [N, 3, rows, columns]
            "data_norm_type": [_NORM],
            "intrinsics": lens,
        }
        said = self._model.infer(
            [view],
            use_amp=frames.device.type == "cuda",
            # One view at a time through the largest head: by default as many as fit what is free just then.
            memory_efficient_inference=True,
            minibatch_size=1,
            # Edges are told here, as for every estimator; masked depth would be 0, which is no depth.
            apply_mask=False,
            mask_edges=False,
        )[0]
        depth = said["depth_z"][..., 0].float().nan_to_num(nan=torch.inf)  # [N, rows, columns]
        clear = (depth > 0) & depth.isfinite()
        if "non_ambiguous_mask" in said:
            clear = clear & said["non_ambiguous_mask"]
        inverse = depth.clamp(min=_NEAR).reciprocal()
        both = torch.stack([inverse, clear.float()], dim=1)  # [N, 2, rows, columns]
        both = interpolate(both, (height, width), mode="nearest-exact")  # [N, 2, H, W]
        return both[:, 0], both[:, 1] > 0.5

    def estimate(self, seen: Seen) -> Perceived:
        """Tell depth and surface of N views.

        Args:
            seen: Pictures, the camera, and what the memory knows.

        Returns:
            What is there; cells with an edge of depth or anything unclear in them are not sure.

        Raises:
            InputError: If there are no pictures.
        """
        if seen.frames is None:
            raise InputError("seen.frames must be given to a depth model, got None")
        inverse, clear = self.say(seen.frames, seen.intrinsics)
        said, _ = perceive(inverse, seen, self._far, self._edge_ratio)
        stride = seen.frames.shape[-1] // seen.known.shape[-1]
        unclear = max_pool2d((~clear).float()[:, None], stride)[:, 0] > 0
        return Perceived(said.depth, said.surface, said.sure & ~unclear)


def _package(folder: Path) -> tuple[Any, Any]:
    """The package's class, and its copy of DINOv2; what importing it switches is switched back."""
    tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        from mapanything.models import MapAnything
        from mapanything.models.external.dinov2.hub import backbones
    except ImportError as error:
        raise MissingExtraError(
            f"depth must be of a kind whose package is installed: {folder} needs mapanything, from the "
            f"repository facebookresearch/map-anything, got {error}"
        ) from error
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return MapAnything, backbones


def _without_checkpoints(config: Any) -> Any:
    """A copy in which no part names a file of weights of its own: those would be unpickled."""
    if isinstance(config, dict):
        return {
            name: None if name == "pretrained_checkpoint_path" else _without_checkpoints(part)
            for name, part in config.items()
        }
    return [_without_checkpoints(part) for part in config] if isinstance(config, list) else config


@contextmanager
def _nothing_fetched(backbones: Any) -> Iterator[None]:
    """Have the image encoder built from the package's own copy of DINOv2, without weights.

    It asks torch.hub, which would fetch code and weights, only to have the weights replaced by the model's.
    """

    def load(repo_or_dir: Any, model: Any, *_: Any, **__: Any) -> Any:
        if repo_or_dir != "facebookresearch/dinov2" or not hasattr(backbones, model):
            raise InputError(f"encoder_config must ask for DINOv2, got {model} of {repo_or_dir}: not fetched")
        return getattr(backbones, model)(pretrained=False)

    before, torch.hub.load = torch.hub.load, load
    try:
        yield
    finally:
        torch.hub.load = before
