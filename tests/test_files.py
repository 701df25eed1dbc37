"""Files and folders that appear whole or not at all, on file systems that can do less."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from mirage_sim.errors import FileWriteError, MirageError
from mirage_sim.files import made_folder, place_new, temporary_prefix, whole_file, whole_folder
from mirage_sim.memory.store import load_state, save_state
from mirage_sim.recording import HDF5Reader, HDF5Writer, repair
from tests.recording.samples import ENV_ARGS, check_episode, record

TENSORS = {"x": torch.arange(40_000)}


def refusing(number: int) -> Any:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture(params=["link", "folder fsync", "chmod", "fallocate", "all"])
def poor_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system without one of these, or without all."""
    real, real_chmod = os.fsync, Path.chmod

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refusing(errno.EINVAL)()
        real(descriptor)

    def chmod(path: Path, mode: int) -> None:
        if path.name.startswith("."):
            refusing(errno.EPERM)()
        real_chmod(path, mode)

    poor = request.param
    if poor in ("link", "all"):
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    if poor in ("folder fsync", "all"):
        monkeypatch.setattr(os, "fsync", fsync)
    if poor in ("chmod", "all"):
        monkeypatch.setattr(Path, "chmod", chmod)
    if poor in ("fallocate", "all"):
        monkeypatch.setattr(os, "posix_fallocate", refusing(errno.EOPNOTSUPP), raising=False)
    return str(poor)


def test_a_recording_is_made_and_extended_there(tmp_path: Path, poor_disk: str) -> None:
    path = tmp_path / "a.h5"
    for number in range(2):
        with HDF5Writer(path, env_args=ENV_ARGS, mode="a") as writer:
            record(writer, number)
    for number, episode in enumerate(HDF5Reader(path)):
        check_episode(episode, number)
    with pytest.raises(OSError, match="must not exist"):
        HDF5Writer(path, env_args=ENV_ARGS)
    assert repair(path).damaged == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_states_and_folders_are_written_there(tmp_path: Path, poor_disk: str) -> None:
    save_state(tmp_path / "deep" / "world", "toy", TENSORS, {"a": 1})
    assert torch.equal(load_state(tmp_path / "deep" / "world", "toy")[0]["x"], TENSORS["x"])
    with whole_folder(tmp_path / "new") as folder:
        (folder / "file").write_text("text")
    assert (tmp_path / "new" / "file").read_text() == "text"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links_a_taken_name_stays_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", refusing(number))
    (tmp_path / "new").write_text("new")
    (tmp_path / "taken").write_text("old")
    with pytest.raises(FileExistsError):
        place_new(tmp_path / "new", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "old"
    place_new(tmp_path / "new", tmp_path / "free")
    assert (tmp_path / "free").read_text() == "new"


def test_without_hard_links_a_failed_rename_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    monkeypatch.setattr(Path, "replace", refusing(errno.ENOSPC))
    with pytest.raises(OSError, match=r"a\.h5 could not be created: No space left"):
        HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.write_bytes", "os.replace"]
)
@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_full_disk_leaves_nothing_behind_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, when: int
) -> None:
    owner: Any = os if call.startswith("os.") else Path
    real, count = getattr(owner, call.rsplit(".", 1)[-1]), 0

    def limited(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == when:
            refusing(errno.ENOSPC)()
        return real(*arguments, **options)

    def make_state() -> None:
        save_state(tmp_path / "deep" / "world", "toy", TENSORS, {})

    def make_file() -> None:
        with made_folder(tmp_path / "deep"), whole_file(tmp_path / "deep" / "world") as temporary:
            temporary.write_bytes(b"text")

    def make_folder() -> None:
        with whole_folder(tmp_path / "deep" / "world") as folder:
            (folder / "file").write_bytes(b"text")

    for make in (make_state, make_file, make_folder):
        monkeypatch.setattr(owner, call.rsplit(".", 1)[-1], limited)
        count = 0
        try:
            make()
        except FileWriteError as error:
            assert "No space left" in str(error)  # noqa: PT017
            assert str(tmp_path / "deep" / "world") in str(error)  # noqa: PT017
            # What took its place before the folder's own entry failed to reach the disk is whole.
            hidden = [entry for entry in tmp_path.rglob("*") if entry.name.startswith(".")]
            assert not hidden
        finally:
            monkeypatch.undo()
        if make is make_state and (tmp_path / "deep" / "world" / "toy.json").exists():
            load_state(tmp_path / "deep" / "world", "toy")
        elif make is make_state:
            assert list(tmp_path.iterdir()) == []
        for entry in sorted(tmp_path.rglob("*"), reverse=True):
            entry.rmdir() if entry.is_dir() else entry.unlink()


@pytest.mark.parametrize("place", ["file", "file/below", "missing\0name"])
def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileWriteError, match=r"file|missing") as refused:
        save_state(tmp_path / place, "toy", TENSORS, {})
    assert isinstance(refused.value, MirageError)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    if Path("/proc").is_dir():
        with pytest.raises(FileWriteError, match="/proc/world could not be made"):
            save_state("/proc/world", "toy", TENSORS, {})


def test_a_failed_save_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, "toy", TENSORS, {"a": 1})
    before = sorted(entry.name for entry in tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    with pytest.raises(FileWriteError, match="No space left"):
        save_state(tmp_path, "toy", {"x": torch.zeros(3)}, {"a": 2})
    monkeypatch.undo()
    assert load_state(tmp_path, "toy")[1] == {"a": 1}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions_and_its_links(tmp_path: Path, mode: int) -> None:
    (tmp_path / "deep").mkdir()
    target, link = tmp_path / "deep" / "file", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(mode)
    link.symlink_to(Path("deep") / "file")
    with whole_file(link) as temporary:
        assert temporary.suffix == ".txt"
        assert not stat.S_IMODE(temporary.stat().st_mode) & ~mode & 0o077
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert len(list(target.parent.iterdir())) == 1


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    for name in ("a" * 247 + ".txt", "\u00e4" * 125 + ".json", "b" * 255):
        with whole_file(tmp_path / name) as temporary:
            temporary.write_text("text")
        assert (tmp_path / name).read_text() == "text"
    with whole_folder(tmp_path / ("c" * 255)) as folder:
        (folder / "file").write_text("text")
    recording = tmp_path / ("d" * 250 + ".h5")
    with HDF5Writer(recording, env_args=ENV_ARGS) as writer:
        record(writer, 0)
    (tmp_path / f"{temporary_prefix(recording, '.new')}x1y2z3w4.new").touch()
    assert repair(recording).leftovers == 1
    assert len(list(tmp_path.iterdir())) == 5
