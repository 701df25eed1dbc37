"""Repair of files that no longer open: every whole episode is listed and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mirage_sim.cli.main import main
from mirage_sim.errors import FileFormatError, RecordingError
from mirage_sim.recording import HDF5Reader, HDF5Writer, repair
from mirage_sim.recording.object_header import SUPERBLOCK_BYTES, Superblock
from tests.recording.samples import ENV_ARGS, check_episode, record

EPISODES = 5


def write(path: Path, compression: Any) -> list[int]:
    """Record a file; return where it ended after each episode."""
    ends = []
    metadata = {"weights_sha256": "ab"}
    with HDF5Writer(path, env_args=ENV_ARGS, compression=compression, metadata=metadata) as writer:
        for number in range(EPISODES):
            record(writer, number)
            ends.append(Superblock.parse(path.read_bytes()[:SUPERBLOCK_BYTES], "").end)
    return ends


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_a_file_cut_anywhere_gives_back_its_whole_episodes(tmp_path: Path, compression: Any) -> None:
    path, new = tmp_path / "a.h5", tmp_path / "a-repaired.h5"
    ends = write(path, compression)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in [*rng.integers(100, len(content), 6), ends[2], ends[2] - 1, len(content) - 1]:
        path.write_bytes(content[: int(cut)])
        new.unlink(missing_ok=True)
        expected = [f"demo_{number}" for number in range(EPISODES) if ends[number] <= cut]
        if not expected:
            continue
        report = repair(path)
        assert set(expected) <= set(report.saved)
        assert report.episodes == len(report.saved)
        assert report.saved_to == str(new)
        assert path.read_bytes() == content[: int(cut)]
        reader = HDF5Reader(new)
        assert tuple(reader.episodes) == report.saved
        assert reader.attrs["weights_sha256"] == "ab"
        assert reader.attrs["total"] == sum(reader.lengths.values())
        for name in report.saved:
            check_episode(reader[name], int(name.removeprefix("demo_")))
        assert repair(new).damaged == ()


@pytest.mark.parametrize("damage", ["superblock", "root", "data", "both"])
def test_a_file_whose_front_is_damaged_gives_back_its_episodes(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.h5"
    write(path, "gzip")
    content = bytearray(path.read_bytes())
    root = Superblock.parse(bytes(content[:SUPERBLOCK_BYTES]), "").root
    if damage == "data":
        with h5py.File(path) as file:
            root = h5py.h5o.get_info(file["data"].id).addr
    if damage != "superblock":
        content[root : root + 64] = bytes(64)
    if damage in ("superblock", "both"):
        content[:SUPERBLOCK_BYTES] = bytes(SUPERBLOCK_BYTES)
    path.write_bytes(content)
    report = repair(path, tmp_path / "new.h5")
    assert report.saved == tuple(f"demo_{number}" for number in range(EPISODES))
    assert report.damaged == ()
    for number, episode in enumerate(HDF5Reader(tmp_path / "new.h5")):
        check_episode(episode, number)


def test_the_command_says_what_was_saved_and_what_was_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.h5"
    ends = write(path, "gzip")
    path.write_bytes(path.read_bytes()[: (ends[1] + ends[2]) // 2])
    assert main(["repair", str(path), "--out", str(tmp_path / "new.h5")]) == 1
    said = capsys.readouterr().out
    for word in ("demo_0", "demo_1", "demo_2", "new.h5"):
        assert word in said
    with pytest.raises(RecordingError, match="out must not exist"):
        repair(path, tmp_path / "new.h5")


def test_where_nothing_is_whole_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ends = write(path, "gzip")
    path.write_bytes(path.read_bytes()[: ends[0] // 2])
    with pytest.raises(FileFormatError, match=r"no whole episode|cut short"):
        repair(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]
