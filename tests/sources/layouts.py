"""Files of others' layouts, written the way their own programs write them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from mirage_sim.sources import PosedClip

Array = np.ndarray[Any, Any]


def write_video(path: Path, frames: Array, fps: int = 10, key_every: int = 4) -> None:
    """Write H.264 with frames that depend on later ones, and a key frame every so often."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "4", "bf": "2", "g": str(key_every), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_depth(path: Path, depth: Array) -> None:
    """ViPE's zip of EXR images: half floats in a channel Z."""
    import Imath
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape[1:]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, image in enumerate(depth):
            header = OpenEXR.Header(width, height)
            header["channels"] = {"Z": Imath.Channel(Imath.PixelType(Imath.PixelType.HALF))}
            with tempfile.NamedTemporaryFile(suffix=".exr") as file:
                exr = OpenEXR.OutputFile(file.name, header)
                exr.writePixels({"Z": image.astype(np.float16).tobytes()})
                exr.close()
                archive.write(file.name, f"{number:05d}.exr")


def write_mask(path: Path, instances: Array) -> None:
    """ViPE's zip of PNG images: numbers of instances."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, image in enumerate(instances.astype(np.uint8)):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            archive.writestr(f"{number:05d}.png", content.getvalue())


def write_vipe(folder: Path, clip: PosedClip, flat: bool = False) -> Path:
    """Write a clip as a video in one of ViPE's layouts; what may move becomes instance 3."""
    name = clip.name
    numbers = np.arange(len(clip))
    lens = np.stack([clip.intrinsics[:, i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))], axis=-1)
    places = {
        kind: folder / name / f"{kind}.{ending}" if flat else folder / kind / f"{name}.{ending}"
        for kind, ending in (("pose", "npz"), ("intrinsics", "npz"), ("depth", "zip"), ("mask", "zip"))
    }
    write_video(folder / name / "clip.mp4" if flat else folder / "rgb" / f"{name}.mp4", clip.frames)
    for kind, table in (("pose", clip.cam2world), ("intrinsics", lens)):
        places[kind].parent.mkdir(parents=True, exist_ok=True)
        np.savez(places[kind], data=table, inds=numbers)
    if not flat:
        (folder / "intrinsics" / f"{name}_camera.txt").write_text(
            "".join(f"{number}: PINHOLE\n" for number in numbers)
        )
    if clip.depth is not None:
        write_depth(places["depth"], clip.depth)
    if clip.movable is not None:
        write_mask(places["mask"], 3 * clip.movable.astype(np.uint8))
        (places["mask"].parent / f"{name}.txt").write_text("0: background\n3: person\n")
    return folder


def make_clip(count: int = 9, hw: tuple[int, int] = (32, 48), name: str = "walk", **parts: Any) -> PosedClip:
    """A clip whose frames tell their number by how bright they are, and their columns by a ramp in red."""
    height, width = hw
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 1] = (np.arange(count) * 200 // max(count - 1, 1) + 20)[:, None, None]
    frames[..., 0] = np.arange(width) * 4
    cam2world = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    cam2world[:, :3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # level, looking along y
    cam2world[:, 0, 3] = 0.1 * np.arange(count)
    intrinsics = np.tile(
        np.array([[40, 0, width / 2], [0, 40, height / 2], [0, 0, 1]], np.float32), (count, 1, 1)
    )
    values: dict[str, Any] = {"depth": None, "movable": None} | parts
    return PosedClip(frames, cam2world=cam2world, intrinsics=intrinsics, fps=10.0, name=name, **values)


class Memory:
    """A source that holds its clips; `broken` videos cannot be read."""

    def __init__(self, *clips: PosedClip) -> None:
        self.clips = {clip.name: clip for clip in clips}
        self.reads = 0

    def names(self) -> list[str]:
        return list(self.clips)

    def length(self, name: str) -> int:
        return len(self.clips[name])

    def read(self, name: str, start: int, frames: int, step: int = 1) -> PosedClip:
        self.reads += 1
        clip = self.clips[name]
        rows = slice(start, start + (frames - 1) * step + 1, step)
        return PosedClip(
            frames=clip.frames[rows],
            depth=None if clip.depth is None else clip.depth[rows],
            movable=None if clip.movable is None else clip.movable[rows],
            cam2world=clip.cam2world[rows],
            intrinsics=clip.intrinsics[rows],
            fps=clip.fps / step,
            name=name,
        )
