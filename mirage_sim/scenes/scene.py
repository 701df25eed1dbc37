"""One flat in PyBullet: built from a seed, rendered headlessly to colour, depth and object ids."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pybullet
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, StateError, check_shape
from mirage_sim.geometry.cameras import rescale_intrinsics
from mirage_sim.geometry.conventions import (
    cam2world_to_pybullet_view,
    intrinsics_to_pybullet_projection,
    matrix_to_quat_wxyz,
    pybullet_depth_to_metres,
    wxyz_to_xyzw,
)
from mirage_sim.geometry.poses import from_yaw_pitch
from mirage_sim.scenes.furnish import furnish
from mirage_sim.scenes.layout import Layout, Room, make_layout
from mirage_sim.scenes.mesh import Mesh, Palette, wavefront
from mirage_sim.scenes.obstacles import FreeSpace, Obstacles, free_space_grid, wall_boxes
from mirage_sim.scenes.shell import Painted, build_shell
from mirage_sim.scenes.sky import paint_sky
from mirage_sim.scenes.textures import room_colours
from mirage_sim.scenes.walks import WalkConfig, plan_walk

NEAR, FAR = 0.05, 40.0
SKY_ID = -1
"""Segmentation id of pixels that show the sky; their depth is 0 (unknown)."""
CELL = 0.1
SAMPLES = 2
"""Colour samples per pixel and axis; depth and ids are those of the pixel's centre."""


@dataclass(frozen=True)
class View:
    """What a camera sees."""

    rgb: NDArray[np.uint8]
    """[H, W, 3]."""
    depth: NDArray[np.float32]
    """[H, W] z-depth in metres, 0 for the sky."""
    segmentation: NDArray[np.int32]
    """[H, W] id of the body seen, `SKY_ID` for the sky; `Scene.labels` names the ids."""


class Scene:
    """A furnished flat. Close it after use, or use it as a context manager."""

    def __init__(self, seed: int) -> None:
        """Build the flat.

        Args:
            seed: Decides everything about the flat.

        Raises:
            InputError: If the seed is negative.
        """
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        self.seed = seed
        rng = np.random.default_rng(seed)
        self._layout = make_layout(rng)
        hue = float(rng.random())
        count = len(self._layout.rooms)
        hues = [hue + (i + float(rng.uniform(-0.2, 0.2))) / count for i in range(count)]
        colours = [room_colours(rng, value) for value in hues]
        placed = furnish(self._layout, colours, rng)
        painted, meshes = build_shell(self._layout, colours, placed, rng)
        self._obstacles = Obstacles(np.asarray(wall_boxes(self._layout) + placed.footprints))
        self._spaces: dict[float, FreeSpace] = {}
        self._sky = (float(rng.uniform(0.52, 0.6)), float(rng.random()))
        self.labels: dict[int, str] = {SKY_ID: "sky"}
        """Name of each segmentation id."""
        self._client = int(pybullet.connect(pybullet.DIRECT))
        if self._client < 0:
            raise StateError("no more PyBullet clients can be opened; close scenes that are no longer used")
        try:
            self._build(painted, [*meshes, *placed.meshes])
        except BaseException:
            self.close()
            raise

    def _build(self, painted: list[Painted], meshes: list[tuple[str, Mesh]]) -> None:
        # Meshes go through files: PyBullet never frees the rows of vertex lists, and would keep cached files.
        pybullet.setPhysicsEngineParameter(enableFileCaching=0, physicsClientId=self._client)
        palette = Palette()
        uvs = [mesh.palette_uvs(palette) for _, mesh in meshes]
        with tempfile.TemporaryDirectory(prefix="scene-files-") as name:
            folder = Path(name)
            shared = self._load_texture(folder / "palette.png", palette.texture())
            for (label, mesh), uv in zip(meshes, uvs, strict=True):
                text = wavefront(np.concatenate(mesh.vertices), np.concatenate(mesh.normals), uv)
                self._add_body(label, text, shared, folder)
            for index, body in enumerate(painted):
                texture = self._load_texture(folder / f"{index}.png", body.image)
                self._add_body(body.name, wavefront(body.vertices, body.normals, body.uvs), texture, folder)

    def _load_texture(self, path: Path, image: NDArray[np.uint8]) -> int:
        Image.fromarray(image).save(path, compress_level=1)
        return int(pybullet.loadTexture(str(path), physicsClientId=self._client))

    def add_body(self, label: str, mesh: Mesh) -> int:
        """Put a thing into the flat that may be moved; it stands at the origin and is no obstacle.

        Args:
            label: What `labels` calls it.
            mesh: Its shape and colours.

        Returns:
            Its id, as in `View.segmentation`.
        """
        palette = Palette()
        uv = mesh.palette_uvs(palette)
        with tempfile.TemporaryDirectory(prefix="scene-files-") as name:
            texture = self._load_texture(Path(name) / "palette.png", palette.texture())
            text = wavefront(np.concatenate(mesh.vertices), np.concatenate(mesh.normals), uv)
            return self._add_body(label, text, texture, Path(name))

    def place_body(self, body: int, pose: Tensor) -> None:
        """Move a thing.

        Args:
            body: Id that `add_body` gave.
            pose: World from the thing's own axes, [4, 4].
        """
        xyzw = wxyz_to_xyzw(matrix_to_quat_wxyz(pose[:3, :3]))
        pybullet.resetBasePositionAndOrientation(
            body, pose[:3, 3].tolist(), xyzw.tolist(), physicsClientId=self._client
        )

    def _add_body(self, label: str, wavefront_text: str, texture: int, folder: Path) -> int:
        path = folder / f"body{len(self.labels)}.obj"
        path.write_text(wavefront_text)
        shape = pybullet.createVisualShape(
            pybullet.GEOM_MESH, fileName=str(path), rgbaColor=[1, 1, 1, 1], physicsClientId=self._client
        )
        body = int(pybullet.createMultiBody(0, -1, shape, physicsClientId=self._client))
        if shape < 0 or body < 0:
            raise StateError(f"the renderer did not take the mesh of a {label}")
        pybullet.changeVisualShape(body, -1, textureUniqueId=texture, physicsClientId=self._client)
        self.labels[body] = label
        return body

    @property
    def rooms(self) -> list[Room]:
        """The rooms of the flat."""
        return self._layout.rooms

    @property
    def layout(self) -> Layout:
        """The plan of the flat."""
        return self._layout

    def render(self, cam2world: Tensor, intrinsics: Tensor, hw: tuple[int, int]) -> View:
        """Render the flat from a camera.

        Args:
            cam2world: [4, 4] camera pose.
            intrinsics: [3, 3] in pixels of the wanted image.
            hw: Height and width of the image, pixels.

        Returns:
            Colour, z-depth and object ids.

        Raises:
            InputError: If a shape is wrong.
            StateError: If the scene is closed.
        """
        check_shape("cam2world", cam2world, [4, 4])
        check_shape("intrinsics", intrinsics, [3, 3])
        if self._client < 0:
            raise StateError("the scene is closed")
        _, buffer, ids = self._draw(cam2world, intrinsics, hw)
        sky = ids < 0
        metres = pybullet_depth_to_metres(torch.from_numpy(buffer), NEAR, FAR).numpy()
        depth = np.where(sky, 0.0, metres).astype(np.float32)
        return View(self._colours(cam2world, intrinsics, hw), depth, np.where(sky, SKY_ID, ids))

    def _colours(self, cam2world: Tensor, intrinsics: Tensor, hw: tuple[int, int]) -> NDArray[np.uint8]:
        """Colour [H, W, 3] without jagged edges: the mean of the samples of every pixel."""
        finer = (SAMPLES * hw[0], SAMPLES * hw[1])
        lens = rescale_intrinsics(intrinsics, float(SAMPLES))
        colour, _, ids = self._draw(cam2world, lens, finer)
        sky = ids < 0
        if sky.any():
            colour[sky] = paint_sky(cam2world, lens, finer, self._sky)[sky]
        samples = colour.reshape(hw[0], SAMPLES, hw[1], SAMPLES, 3)
        mean: NDArray[np.uint8] = np.round(samples.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
        return mean

    def _draw(
        self, cam2world: Tensor, intrinsics: Tensor, hw: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
        """One sample per pixel: colour [H, W, 3], depth buffer [H, W], body ids [H, W] (negative: none)."""
        height, width = hw
        _, _, colour, buffer, ids = pybullet.getCameraImage(
            width,
            height,
            viewMatrix=cam2world_to_pybullet_view(cam2world),
            projectionMatrix=intrinsics_to_pybullet_projection(intrinsics, height, width, NEAR, FAR),
            lightDirection=[0.0, 0.0, 1.0],
            lightColor=[1.0, 1.0, 1.0],
            lightAmbientCoeff=1.0,
            lightDiffuseCoeff=0.0,
            lightSpecularCoeff=0.0,
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        return (
            np.asarray(colour, dtype=np.uint8).reshape(height, width, 4)[..., :3].copy(),
            np.array(buffer, dtype=np.float32).reshape(height, width),
            np.array(ids, dtype=np.int32).reshape(height, width),
        )

    def is_free(self, position: Any, radius: float) -> bool:
        """Whether an upright disc may stand somewhere; furniture counts as high as the room.

        Args:
            position: World (x, y) or (x, y, z), metres.
            radius: Radius of the disc, metres.
        """
        point = own_array("position", position).astype(np.float64).reshape(-1)[:2]
        return self._indoors(point) and float(self._obstacles.distance(point[None])[0]) >= radius

    def collides(self, a: Any, b: Any, radius: float) -> bool:
        """Whether a disc that moves straight from `a` to `b` touches a wall or furniture.

        Args:
            a: Start, world (x, y) or (x, y, z), metres.
            b: End, likewise.
            radius: Radius of the disc, metres.
        """
        start = own_array("a", a).astype(np.float64).reshape(-1)[:2]
        end = own_array("b", b).astype(np.float64).reshape(-1)[:2]
        if not (self._indoors(start) and self._indoors(end)):
            return True
        return self._obstacles.segment_distance(start, end) < radius

    def _indoors(self, point: NDArray[np.float64]) -> bool:
        spans = [(r.x, r.y) for r in self._layout.rooms] + [(d.x, d.y) for d in self._layout.doorways]
        return any(x[0] <= point[0] <= x[1] and y[0] <= point[1] <= y[1] for x, y in spans)

    def free_space(self, radius: float = 0.0) -> FreeSpace:
        """The top view of where a disc of `radius` metres may stand, in cells of 10 cm."""
        if radius not in self._spaces:
            self._spaces[radius] = free_space_grid(self._layout, self._obstacles, radius, CELL)
        return self._spaces[radius]

    def open_view(self, point: NDArray[np.float64], yaw: float, limit: float = 3.0) -> float:
        """How far one can look over the floor plan before something fills the view.

        Args:
            point: World (x, y), metres.
            yaw: Direction, radians.
            limit: Farthest distance looked at, metres.

        Returns:
            Metres, in steps of 0.2: the mean over the direction and one to each side of it.
        """
        reach = np.arange(0.2, limit + 0.1, 0.2)
        angles = yaw + np.array([-0.35, 0.0, 0.35])
        rays = np.stack([np.cos(angles), np.sin(angles)], -1)  # [3, 2]
        line = point + reach[:, None, None] * rays  # [steps, 3, 2]
        clear = self._obstacles.distance(line.reshape(-1, 2)).reshape(-1, 3) >= 0.05
        return float(np.cumprod(clear, axis=0).sum(axis=0).mean() * 0.2)

    def sample_pose(self, rng: np.random.Generator) -> Tensor:
        """Draw a camera pose at eye height in free space, looking along open space where there is some.

        Args:
            rng: Source of the choice.

        Returns:
            cam2world, [4, 4] float32.
        """
        space = self.free_space(0.35)
        rows, columns = np.nonzero(space.free)
        pick = int(rng.integers(len(rows)))
        x, y = space.centres()[rows[pick], columns[pick]].tolist()
        point = np.array([x, y])
        yaw = max(rng.uniform(-np.pi, np.pi, 4).tolist(), key=lambda angle: self.open_view(point, angle))
        position = torch.tensor([x, y, float(rng.uniform(1.2, 1.6))])
        return from_yaw_pitch(position, yaw, float(rng.uniform(-0.2, 0.05))).to(torch.float32)

    def plan_walk(
        self, rng: np.random.Generator, steps: int, step_length: float = 0.12, max_turn_deg: float = 6.0
    ) -> Tensor:
        """Plan a walk through the flat; see `mirage_sim.scenes.walks.plan_walk`.

        Args:
            rng: Source of every choice.
            steps: Number of poses.
            step_length: Longest move between poses, metres.
            max_turn_deg: Largest change of yaw between poses, degrees.

        Returns:
            cam2world, [steps, 4, 4] float32.
        """
        return plan_walk(self, rng, steps, WalkConfig(step_length=step_length, max_turn_deg=max_turn_deg))

    def close(self) -> None:
        """Give the renderer's memory back; may be called more than once."""
        if self._client >= 0:
            pybullet.disconnect(physicsClientId=self._client)
            self._client = -1

    def __enter__(self) -> Scene:
        """The scene itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scene."""
        self.close()


def make_scene(seed: int) -> Scene:
    """Build the flat of a seed.

    Args:
        seed: Decides everything about the flat; `mirage_sim.scenes.splits` says which seeds are for what.

    Returns:
        The flat, to be closed after use.

    Raises:
        InputError: If the seed is negative.

    Source: ours.
    """
    return Scene(seed)
