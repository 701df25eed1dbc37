"""Make the environment, walk a few steps, and keep what was seen as one picture."""

from pathlib import Path

import gymnasium as gym

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.recording import contact_sheet, write_png

OUT = Path("out/01_make_and_step")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    env = gym.make("Mirage/Explore-v1")
    observation, info = env.reset(seed=0)
    frames = [observation["rgb"]]
    for step in range(15):
        # Forward, left, up, yaw and pitch, each in [-1, 1]; 1 is 0.25 m or 15 degrees.
        action = env.action_space.low * 0
        action[0], action[3] = 0.3, 0.2
        observation, reward, _, _, info = env.step(action)
        frames.append(observation["rgb"])
        parts = ", ".join(f"{name} {value:.0f} ms" for name, value in info["timings_ms"].items())
        print(f"step {step}: reward {reward:.2f}, remembered {info['coverage']:.0%} ({parts})")
    env.close()
    print(f"wrote {write_png(OUT / 'walk.png', contact_sheet(frames))}")


if __name__ == "__main__":
    main()
