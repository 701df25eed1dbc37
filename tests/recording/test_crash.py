"""Kills, full disks and second writers: what was stored stays stored, and half an episode is never seen."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mirage_sim.errors import FileFormatError, RecordingError, StateError
from mirage_sim.recording import HDF5Reader, HDF5Writer, crash_safe_file, repair, tail_file
from mirage_sim.recording.object_header import checksum
from tests.recording.samples import ENV_ARGS, check_episode, record, write_file

ROOT = Path(__file__).parents[2]


def run_python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_at_any_moment_all_finished_episodes_are_there(tmp_path: Path) -> None:
    result = json.loads(run_python("-m", "tests.recording.kill_trials", str(tmp_path)))
    total = 0
    for stored, held in result["grown"]:
        # The kill may fall between the commit and the report of it.
        assert max(stored, total) <= held <= max(stored, total) + 1
        total = held
    assert total > 15
    assert all(stored <= held <= stored + 1 for stored, held in result["fresh"])
    left_over = [name for name in result["names"] if not name.endswith((".h5", ".new"))]
    assert not left_over, "a running episode must leave nothing behind"


def test_the_file_is_whole_after_every_single_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a.h5", 9)
    writes = 0
    held = 9

    def look(next_held: int) -> int:
        copy = tmp_path / "copy.h5"
        copy.write_bytes(path.read_bytes())
        count = len(HDF5Reader(copy))
        assert count in (held, next_held)
        if writes % 5 == 0 or count != held:
            for number, episode in enumerate(HDF5Reader(copy)):
                check_episode(episode, number)
        return count

    def watched(descriptor: int, content: bytes | memoryview, offset: int) -> None:
        nonlocal writes, held
        tail_file_write(descriptor, content, offset)
        writes += 1
        held = look(held + 1)

    tail_file_write = tail_file.write_at
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a", fsync=False) as writer:
        monkeypatch.setattr(tail_file, "write_at", watched)
        monkeypatch.setattr(crash_safe_file, "write_at", watched)
        for number in (9, 10, 11):
            record(writer, number)
            assert held == number + 1
    assert writes > 30


def test_repair_cuts_the_torn_tail(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 3)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x55" * 5000)
    assert len(HDF5Reader(path)) == 3
    (tmp_path / ".a.h5.x1y2.new").touch()
    (tmp_path / ".b.h5.x1y2.new").touch()
    report = repair(path)
    assert (report.episodes, report.torn_bytes, report.damaged, report.leftovers) == (3, 5000, (), 1)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.h5", ".b.h5.x1y2.new"}
    assert path.read_bytes() == whole
    assert repair(path).torn_bytes == 0


def test_repair_names_a_damaged_episode(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 3)
    with h5py.File(path) as file:
        chunk = file["data/demo_1/frames/rgb"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xaa" * chunk.size
    path.write_bytes(content)
    assert repair(path).damaged == ("demo_1",)
    with pytest.raises(FileFormatError, match="demo_1"):
        HDF5Reader(path)[1]


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 3)
    path.write_bytes(path.read_bytes()[:-3000])
    for use in (HDF5Reader, lambda path: HDF5Writer(path, env_args=ENV_ARGS, mode="a")):
        with pytest.raises(FileFormatError, match=r"cut short|readable"):
            use(path)


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    other = "import sys; from mirage_sim.recording import HDF5Writer; "
    other += "HDF5Writer(sys.argv[1], env_args={'env_name': 'Toy/Walk-v0'}, mode='a')"
    with HDF5Writer(path, env_args=ENV_ARGS) as writer:
        record(writer, 0)
        with pytest.raises(RecordingError, match="in use by another writer"):
            HDF5Writer(path, env_args=ENV_ARGS, mode="a")
        with pytest.raises(RecordingError, match="in use by another writer"):
            repair(path)
        with pytest.raises(OSError, match="lock"), h5py.File(path, "r+"):
            pass
        with h5py.File(path, "r") as file:
            assert list(file["data"]) == ["demo_0"]
            done = subprocess.run(
                [sys.executable, "-c", other, str(path)], cwd=ROOT, capture_output=True, timeout=60
            )
        assert done.returncode
        assert b"RecordingError" in done.stderr
        assert b"in use by another writer" in done.stderr
        record(writer, 1)
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a") as writer:
        record(writer, 2)
    assert len(HDF5Reader(path)) == 3


FULL_DISK = """
import resource, sys, numpy as np
from mirage_sim.errors import RecordingError
from mirage_sim.recording import HDF5Writer
from tests.recording.samples import ENV_ARGS, record
path, limit_of = sys.argv[1:]
rng = np.random.default_rng(0)
writer = HDF5Writer(path, env_args=ENV_ARGS)
for number in range(4):
    record(writer, number)
# The whole-file limit stops the side file (one large episode) or the main file (many small ones).
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
frames = rng.integers(0, 256, (60 if limit_of == "side" else 4, 64, 64, 3), dtype=np.uint8)
stored = 4
try:
    for _ in range(100):
        writer.write_episode({"rgb": frames}, np.zeros((len(frames) - 1, 1)))
        stored += 1
except RecordingError as error:
    print(stored, error)
if limit_of == "main":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert writer.write_episode({"rgb": frames}) == f"demo_{stored}"
writer.close()
"""


@pytest.mark.parametrize("limit_of", ["side", "main"])
def test_a_full_disk_keeps_what_was_stored(tmp_path: Path, limit_of: str) -> None:
    path = tmp_path / "a.h5"
    output = run_python("-c", FULL_DISK, str(path), limit_of)
    stored = int(output.split()[0])
    assert "File too large" in output
    assert stored == 4 if limit_of == "side" else stored > 6
    reader = HDF5Reader(path)
    assert len(reader) == stored + (limit_of == "main")
    for number in range(4):
        check_episode(reader[number], number)
    assert repair(path).damaged == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_disk_that_fills_at_any_write_keeps_what_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a.h5", 2)
    write_at, left = tail_file.write_at, 0

    def limited(descriptor: int, content: bytes | memoryview, offset: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            write_at(descriptor, memoryview(content)[: len(content) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        write_at(descriptor, content, offset)

    monkeypatch.setattr(tail_file, "write_at", limited)
    monkeypatch.setattr(crash_safe_file, "write_at", limited)
    refused, stored = 0, 2
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a", fsync=False) as writer:
        while stored == 2:
            left = refused
            try:
                record(writer, 2, size=64)
                stored += 1
            except RecordingError as error:
                assert "No space left" in str(error)  # noqa: PT017
                writer.discard_episode()
                refused += 1
                assert len(HDF5Reader(path)) == 2
        left = 10**6
        record(writer, 3)
    assert refused > 30
    check_episode(HDF5Reader(path)[2], 2, size=64)
    for number in (0, 1, 3):
        check_episode(HDF5Reader(path)[number], number)


def test_an_error_in_the_middle_keeps_the_running_episode_as_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with HDF5Writer(path, env_args=ENV_ARGS) as writer:
        record(writer, 0)
        writer.begin_episode()
        writer.append({"x": np.zeros(2)}, [0.0], 0.0, False, False, {"x": np.ones(2)})
    assert HDF5Reader(path).lengths == {"demo_0": 3, "demo_1": 1}
    assert HDF5Reader(path)[1].attrs["cut"]
    with pytest.raises(StateError, match="closed"):
        writer.begin_episode()


def test_a_change_that_a_commit_would_lose_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 2)
    before = path.read_bytes()
    file = crash_safe_file.CrashSafeFile(path)
    with pytest.raises(RecordingError, match="cannot be extended safely"), file.transaction() as opened:
        opened["data/demo_0/rewards"][0] = 5.0
    file.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", 0xDEADBEEF),
        (b"Four score and seven years ago", 0x17770551),
    ],
)
def test_checksum_has_the_published_values(content: bytes, expected: int) -> None:
    assert checksum(content) == expected


def test_memory_stays_flat_over_ten_thousand_steps(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (16, 24, 24, 3), dtype=np.uint8)
    marks: dict[int, int] = {}
    obs: Any
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS) as writer:
        writer.begin_episode()
        for step in range(10_000):
            obs = {"rgb": frames[step % 16], "cam2world": np.eye(4)} if step == 0 else None
            after = {"rgb": frames[(step + 1) % 16], "cam2world": np.eye(4)}
            writer.append(obs, np.zeros(5), 0.0, False, False, after, {"coverage": 0.5})
            if step in (1000, 9999):
                marks[step] = resident()
        writer.end_episode()
    # 17 MB of images went through.
    assert marks[9999] - marks[1000] < 4e6
    assert resident() - marks[1000] < 8e6
    reader = HDF5Reader(tmp_path / "a.h5")
    assert reader.lengths == {"demo_0": 10_000}
    assert np.array_equal(reader.frames(0, "rgb", -1), frames[10_000 % 16])
