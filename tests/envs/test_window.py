"""The window of `render_mode="human"` on a real (virtual) display."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WALK = """
import sys
import matplotlib.pyplot as plt
import numpy as np
from PIL import ImageGrab
from mirage_sim.envs import ExploreEnv
from mirage_sim.geometry import from_yaw_pitch

env = ExploreEnv(world_model=sys.argv[1], render_mode="human", action_mode="discrete")
env.reset(seed=0, options={"image": np.full((32, 32, 3), (250, 20, 20), np.uint8)})
env.step(1)
plt.pause(0.5)
ImageGrab.grab(xdisplay=sys.argv[2]).save(sys.argv[3])
np.save(sys.argv[4], env.step(1)[0]["rgb"])
env.close()
assert not plt.get_fignums()
"""


@pytest.fixture
def display() -> Iterator[str]:
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    pytest.importorskip("tkinter")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    yield ":" + server.stdout.readline().strip()
    server.terminate()
    server.wait()


def test_the_window_shows_what_is_generated(display: str, model_folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {"DISPLAY": display, "MPLBACKEND": "TkAgg"}
    picture, frame = tmp_path / "screen.png", tmp_path / "frame.npy"
    command = [sys.executable, "-c", WALK, str(model_folder), display, str(picture), str(frame)]
    subprocess.run(command, check=True, env=environment, timeout=240)
    screen = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    # the screen is black but for the window: grey tool bar, white canvas, and the frame in the middle
    window = screen[screen.sum(axis=-1) > 0]
    shown = np.abs(screen - np.load(frame).mean(axis=(0, 1))).max(axis=-1) < 60
    assert len(window) > 10_000
    assert shown.sum() > 5_000
