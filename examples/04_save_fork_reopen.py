"""Save a generated place, try two ways on in copies of it, and open it again as it was saved."""

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.recording import contact_sheet, write_png

OUT = Path("out/04_save_fork_reopen")
LEFT = np.array([0.0, 0.0, 0.0, 1.0, 0.0], np.float32)
AHEAD = np.array([0.6, 0.0, 0.0, 0.0, 0.0], np.float32)


def go(env: gym.Env, action: np.ndarray, steps: int) -> list[np.ndarray]:
    return [env.step(action)[0]["rgb"] for _ in range(steps)]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    folder = OUT / "place"
    shutil.rmtree(folder, ignore_errors=True)
    env = gym.make("Mirage/Explore-v1")
    env.reset(seed=7)
    go(env, AHEAD, 3)
    place = env.unwrapped
    place.save_world(folder)

    one, other = place.fork(), place.fork()
    turned, walked = go(one, LEFT, 5), go(other, AHEAD, 5)

    fresh = gym.make("Mirage/Explore-v1")
    fresh.reset(options={"world": str(folder)})
    again = go(fresh, LEFT, 5)
    alike = all(np.array_equal(first, second) for first, second in zip(turned, again, strict=True))
    print(f"the reopened place goes on like the copy that went the same way, to the byte: {alike}")
    print("rows: a copy turns left; a copy walks ahead; the place, reopened, turns left")
    print(f"wrote {write_png(OUT / 'ways.png', contact_sheet(turned + walked + again, columns=5))}")


if __name__ == "__main__":
    main()
