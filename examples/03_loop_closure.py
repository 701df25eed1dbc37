"""Turn away and back, with the memory and without it: the first view, the same view again, and the gap."""

from pathlib import Path

import gymnasium as gym
import numpy as np

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.agents import make_agent
from mirage_sim.recording import contact_sheet, write_png

OUT = Path("out/03_loop_closure")
STEPS = 24


def walk(memory: bool) -> list[np.ndarray]:
    env = gym.make("Mirage/Explore-v1", memory=memory)
    observation, info = env.reset(seed=4)
    agent = make_agent("yaw_return", env, steps=STEPS, degrees=90.0)
    agent.reset(observation, info)
    frames = [observation["rgb"]]
    for _ in range(STEPS):
        observation, _, _, _, info = env.step(agent.act(observation, info))
        frames.append(observation["rgb"])
    env.close()
    return frames


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rows = []
    for memory in (True, False):
        frames = walk(memory)
        same = [psnr(frames[step], frames[STEPS - step]) for step in range(STEPS // 2)]
        print(
            f"memory {'on ' if memory else 'off'}: back at the start {same[0]:.1f} dB, "
            f"same view out and back {np.mean(same[1:]):.1f} dB"
        )
        difference = np.abs(frames[0].astype(np.int16) - frames[-1]).astype(np.uint8)
        rows += [frames[0], frames[STEPS // 4], frames[STEPS // 2], frames[-1], difference]
    print("columns: start, 45 degrees, 90 degrees, back at the start, difference; rows: memory on, off")
    print(f"wrote {write_png(OUT / 'loop.png', contact_sheet(rows, columns=5))}")


if __name__ == "__main__":
    main()
