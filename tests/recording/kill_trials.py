"""Run by test_crash: records in child processes, kills each at a random moment, prints what is there then."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from mirage_sim.recording import HDF5Reader, HDF5Writer
from tests.recording.samples import ENV_ARGS, check_episode, record


def record_forever(path: Path, report: int) -> None:
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a", fsync=False) as writer:
        while True:
            number = len(writer.episodes)
            record(writer, number)
            os.write(report, number.to_bytes(4, "little"))


def trial(path: Path, seconds: float, grown: bool) -> tuple[int, int]:
    """Returns the episodes that the child reported as stored and those that the file holds."""
    listen, report = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            record_forever(path, report)
        finally:
            os._exit(1)
    os.close(report)
    if grown:
        # On a busy machine the time alone would not do.
        select.select([listen], [], [], 30)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reports = b""
    while part := os.read(listen, 65536):
        reports += part
    os.close(listen)
    stored = int.from_bytes(reports[-4:], "little") + 1 if reports else 0
    if not path.exists():
        return stored, 0
    reader = HDF5Reader(path)
    with reader:
        for number, name in enumerate(reader.episodes):
            check_episode(reader[name], number)
    return stored, len(reader)


def main() -> None:
    folder = Path(sys.argv[1])
    rng = random.Random(7)  # noqa: S311
    fresh = [trial(folder / f"{i}.h5", 0.015 * rng.random(), False) for i in range(6)]
    grown = [trial(folder / "grown.h5", 0.1 * rng.random(), True) for _ in range(15)]
    names = sorted(path.name for path in folder.iterdir())
    print(json.dumps({"fresh": fresh, "grown": grown, "names": names}))


if __name__ == "__main__":
    main()
