"""Record episodes to HDF5 through a wrapper, and read them back, here and with plain h5py."""

from pathlib import Path

import gymnasium as gym
import h5py

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.agents import make_agent
from mirage_sim.recording import HDF5Reader, RecordHDF5

OUT = Path("out/02_record_and_read")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "walks.hdf5"
    path.unlink(missing_ok=True)
    env = RecordHDF5(gym.make("Mirage/Explore-v1", max_episode_steps=12), path)
    agent = make_agent("frontier", env)
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        agent.reset(observation, info)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(agent.act(observation, info))
            ended = terminated or truncated
    env.close()

    reader = HDF5Reader(path)
    for name, episode in zip(reader.episodes, reader, strict=True):
        images, poses = episode.frames["rgb"], episode.cam2world
        if poses is None:
            poses = episode.frames["cam2world"]
        print(
            f"{name}: {len(episode)} steps, seed {episode.seed}, images {images.shape}, poses {poses.shape}"
        )
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        print("data/demo_0 holds", ", ".join(sorted(demo)))
        print("first observation, mean colour:", demo["obs/rgb"][0].mean(axis=(0, 1)).round(1))


if __name__ == "__main__":
    main()
