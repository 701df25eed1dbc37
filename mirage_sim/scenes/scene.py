"""One flat: built from a seed, rendered to colour, depth and object ids."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, StateError, check_shape
from mirage_sim.geometry.poses import from_yaw_pitch
from mirage_sim.scenes.cpu_renderer import CpuRenderer
from mirage_sim.scenes.furnish import furnish
from mirage_sim.scenes.layout import Layout, Room, make_layout
from mirage_sim.scenes.mesh import Floats, Mesh, Palette
from mirage_sim.scenes.obstacles import FreeSpace, Obstacles, free_space_grid, wall_boxes
from mirage_sim.scenes.renderer import SKY_ID, RendererFactory, View
from mirage_sim.scenes.shell import Painted, build_shell
from mirage_sim.scenes.textures import room_colours
from mirage_sim.scenes.walks import WalkConfig, plan_walk

CELL = 0.1


class Scene:
    """A furnished flat. Close it after use, or use it as a context manager."""

    def __init__(self, seed: int, renderer: RendererFactory = CpuRenderer) -> None:
        """Build the flat.

        Args:
            seed: Decides everything about the flat.
            renderer: Makes what draws it.

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
        sky = (float(rng.uniform(0.52, 0.6)), float(rng.random()))
        self.labels: dict[int, str] = {SKY_ID: "sky"}
        """Name of each segmentation id."""
        self._renderer = renderer(sky)
        self._closed = False
        try:
            self._build(painted, [*meshes, *placed.meshes])
        except BaseException:
            self.close()
            raise

    def _build(self, painted: list[Painted], meshes: list[tuple[str, Mesh]]) -> None:
        palette = Palette()
        uvs = [mesh.palette_uvs(palette) for _, mesh in meshes]
        shared = palette.texture()
        for (label, mesh), uv in zip(meshes, uvs, strict=True):
            self._add(label, np.concatenate(mesh.vertices), uv, shared)
        for body in painted:
            self._add(body.name, body.vertices, body.uvs, body.image)

    def _add(self, label: str, vertices: Floats, uvs: Floats, image: NDArray[np.uint8]) -> int:
        body = self._renderer.add(vertices, uvs, image)
        self.labels[body] = label
        return body

    def add_body(self, label: str, mesh: Mesh) -> int:
        """Put a thing into the flat that may be moved; it stands at the origin and is no obstacle.

        Args:
            label: What `labels` calls it.
            mesh: Its shape and colours.

        Returns:
            Its id, as in `View.segmentation`.

        Raises:
            StateError: If the scene is closed.
        """
        self._check_open()
        palette = Palette()
        uvs = mesh.palette_uvs(palette)
        return self._add(label, np.concatenate(mesh.vertices), uvs, palette.texture())

    def place_body(self, body: int, pose: Tensor) -> None:
        """Move a thing.

        Args:
            body: Id that `add_body` gave.
            pose: World from the thing's own axes, [4, 4].

        Raises:
            InputError: If the pose has the wrong shape.
            StateError: If the scene is closed.
        """
        check_shape("pose", pose, [4, 4])
        self._check_open()
        self._renderer.place(body, _as_floats(pose))

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
        self._check_open()
        return self._renderer.render(_as_floats(cam2world)[None], _as_floats(intrinsics), hw)[0]

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the scene is closed")

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
        drawn = [x, y, float(rng.uniform(1.2, 1.6)), yaw, float(rng.uniform(-0.2, 0.05))]
        eye = torch.tensor(drawn, dtype=torch.float32, device="cpu")
        return from_yaw_pitch(eye[:3], eye[3], eye[4])

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
        self._renderer.close()
        self._closed = True

    def __enter__(self) -> Scene:
        """The scene itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scene."""
        self.close()


def make_scene(seed: int, renderer: RendererFactory = CpuRenderer) -> Scene:
    """Build the flat of a seed.

    Args:
        seed: Decides everything about the flat; `mirage_sim.scenes.splits` says which seeds are for what.
        renderer: Makes what draws it.

    Returns:
        The flat, to be closed after use.

    Raises:
        InputError: If the seed is negative.
    """
    return Scene(seed, renderer)


def _as_floats(matrix: Tensor) -> Floats:
    return np.asarray(matrix.detach().to("cpu", torch.float64).numpy())
