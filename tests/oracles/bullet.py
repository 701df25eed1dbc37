"""PyBullet without its greeting, and TinyRenderer as a renderer of flats."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim.geometry import (
    cam2world_to_pybullet_view,
    intrinsics_to_pybullet_projection,
    matrix_to_quat_wxyz,
    pybullet_depth_to_metres,
    wxyz_to_xyzw,
)
from mirage_sim.scenes.renderer import FAR, NEAR, SKY_ID, SkyLook, View
from mirage_sim.scenes.sky import paint_sky

SAMPLES = 2
_FACE = "f {0}/{0} {1}/{1} {2}/{2} {3}/{3}\n"


def import_pybullet() -> Any:
    """Import PyBullet, which prints when it was built; skip the test where it is not installed."""
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 2)
        return pytest.importorskip("pybullet")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silent)


class TinyRenderer:
    """Draws flats as PyBullet's software renderer does."""

    def __init__(self, sky: SkyLook) -> None:
        self._bullet, self._sky = import_pybullet(), sky
        self._client = self._bullet.connect(self._bullet.DIRECT)
        # Meshes go through files: PyBullet never frees the rows of vertex lists, and would keep cached files.
        self._bullet.setPhysicsEngineParameter(enableFileCaching=0, physicsClientId=self._client)
        self._textures: dict[int, tuple[int, np.ndarray]] = {}

    def add(self, vertices: np.ndarray, uvs: np.ndarray, image: np.ndarray) -> int:
        bullet, client = self._bullet, self._client
        with tempfile.TemporaryDirectory() as folder:
            if id(image) not in self._textures:
                picture = Path(folder) / "texture.png"
                Image.fromarray(image).save(picture, compress_level=1)
                self._textures[id(image)] = (bullet.loadTexture(str(picture), physicsClientId=client), image)
            mesh = Path(folder) / "mesh.obj"
            mesh.write_text(_wavefront(vertices, uvs))
            shape = bullet.createVisualShape(
                bullet.GEOM_MESH, fileName=str(mesh), rgbaColor=[1, 1, 1, 1], physicsClientId=client
            )
            body = int(bullet.createMultiBody(0, -1, shape, physicsClientId=client))
        assert shape >= 0
        assert body >= 0
        bullet.changeVisualShape(
            body, -1, textureUniqueId=self._textures[id(image)][0], physicsClientId=client
        )
        return body

    def place(self, body: int, pose: np.ndarray) -> None:
        xyzw = wxyz_to_xyzw(matrix_to_quat_wxyz(torch.from_numpy(pose[:3, :3])))
        self._bullet.resetBasePositionAndOrientation(
            body, pose[:3, 3].tolist(), xyzw.tolist(), physicsClientId=self._client
        )

    def render(self, cam2world: np.ndarray, intrinsics: np.ndarray, hw: tuple[int, int]) -> list[View]:
        return [self._view(camera, intrinsics, hw) for camera in cam2world]

    def close(self) -> None:
        if self._client >= 0:
            self._bullet.disconnect(physicsClientId=self._client)
            self._client = -1

    def _view(self, cam2world: np.ndarray, intrinsics: np.ndarray, hw: tuple[int, int]) -> View:
        _, depth, ids = self.draw(cam2world, intrinsics, hw)
        fine = intrinsics * np.array([[SAMPLES], [SAMPLES], [1.0]])
        colours, _, fine_ids = self.draw(cam2world, fine, (SAMPLES * hw[0], SAMPLES * hw[1]))
        row, column = np.nonzero(fine_ids == SKY_ID)
        pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))], axis=-1)
        colours[row, column] = paint_sky(pixels @ np.linalg.inv(fine).T @ cam2world[:3, :3].T, self._sky)
        blocks = colours.reshape(hw[0], SAMPLES, hw[1], SAMPLES, 3)
        return View(np.round(blocks.mean(axis=(1, 3))).astype(np.uint8), depth, ids)

    def draw(
        self, cam2world: np.ndarray, intrinsics: np.ndarray, hw: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One sample per pixel: colour [H, W, 3], depth in metres [H, W], ids [H, W]."""
        height, width = hw
        lens = torch.from_numpy(intrinsics)
        _, _, colour, buffer, ids = self._bullet.getCameraImage(
            width,
            height,
            viewMatrix=cam2world_to_pybullet_view(torch.from_numpy(cam2world)),
            projectionMatrix=intrinsics_to_pybullet_projection(lens, height, width, NEAR, FAR),
            lightDirection=[0.0, 0.0, 1.0],
            lightColor=[1.0, 1.0, 1.0],
            lightAmbientCoeff=1.0,
            lightDiffuseCoeff=0.0,
            lightSpecularCoeff=0.0,
            shadow=0,
            renderer=self._bullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        shown = np.array(ids, dtype=np.int32).reshape(hw)
        metres = pybullet_depth_to_metres(torch.from_numpy(np.asarray(buffer, np.float32)), NEAR, FAR)
        return (
            np.asarray(colour, dtype=np.uint8).reshape(*hw, 4)[..., :3].copy(),
            np.where(shown < 0, np.float32(0.0), metres.numpy().reshape(hw)),
            np.where(shown < 0, SKY_ID, shown),
        )


def _wavefront(vertices: np.ndarray, uvs: np.ndarray) -> str:
    """Quads as the text of a Wavefront OBJ file."""
    places = "".join("v {:.9g} {:.9g} {:.9g}\n".format(*row) for row in vertices.tolist())
    pictures = "".join("vt {:.9g} {:.9g}\n".format(*row) for row in uvs.tolist())
    corners = np.arange(1, len(vertices) + 1).reshape(-1, 4).tolist()
    return places + pictures + "".join(_FACE.format(*row) for row in corners)
