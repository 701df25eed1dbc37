"""Step into a photograph: a real stereo pair gives the first frame, and its disparity the depth.

The embedded model knows furnished rooms through a wide lens and nothing else, so what it adds around a
photograph is poor; what the photograph showed is kept.
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
from skimage import data
from skimage.transform import resize

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.agents import make_agent
from mirage_sim.recording import contact_sheet, write_png

OUT = Path("out/05_your_own_image")
# Calibration of the pair (Middlebury 2014, "Motorcycle") at the quarter size that scikit-image ships.
FOCAL_PIXELS = 994.978
CENTRE_PIXELS = (311.193, 254.877)
BASELINE_METRES = 0.193001
DISPARITY_SHIFT = 31.086
STEPS = 24


def first_view(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a square, and give image [H, W, 3], depth in metres [H, W] and intrinsics [3, 3] at the size."""
    left, _, disparity = data.stereo_motorcycle()
    known = np.isfinite(disparity) & (disparity + DISPARITY_SHIFT > 0)
    depth = np.where(
        known, FOCAL_PIXELS * BASELINE_METRES / (np.where(known, disparity, 0) + DISPARITY_SHIFT), 0
    )
    height, width = depth.shape
    start = (width - height) // 2
    image, depth = left[:, start : start + height], depth[:, start : start + height]
    small = (resize(image, (size, size), anti_aliasing=True) * 255).round().astype(np.uint8)
    # Depth takes the nearest pixel: a mean of near and far would be a surface that is not there.
    pixels = ((np.arange(size) + 0.5) * height / size).astype(int)
    # The calibration puts 0 in the middle of the first pixel, the environment 0.5.
    scale = size / height
    x, y = CENTRE_PIXELS[0] + 0.5 - start, CENTRE_PIXELS[1] + 0.5
    intrinsics = np.array([[FOCAL_PIXELS, 0, x], [0, FOCAL_PIXELS, y], [0, 0, 1 / scale]], np.float32) * scale
    return small, depth[np.ix_(pixels, pixels)].astype(np.float32), intrinsics


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    env = gym.make("Mirage/Explore-v1")
    size = env.observation_space["rgb"].shape[0]
    image, depth, intrinsics = first_view(size)
    known = depth[depth > 0]
    print(f"depth known for {known.size / depth.size:.0%} of it, {known.min():.1f} to {known.max():.1f} m")
    observation, info = env.reset(seed=0, options={"image": image, "depth": depth, "intrinsics": intrinsics})
    agent = make_agent("out_and_back", env, steps=STEPS, distance=0.6)
    agent.reset(observation, info)
    frames = [observation["rgb"]]
    for _ in range(STEPS):
        observation, _, _, _, info = env.step(agent.act(observation, info))
        frames.append(observation["rgb"])
    env.close()
    print("the photograph, then the walk into it and back")
    print(f"wrote {write_png(OUT / 'walk.png', contact_sheet([image, *frames[::2]]))}")


if __name__ == "__main__":
    main()
