"""Folders: hidden names and what lies in hidden folders are not there."""

from __future__ import annotations

from pathlib import Path

from mirage_sim.folders import visible

SEEN = ("10.h5", "2.h5", "a.h5", "sub/b.h5")
HIDDEN = (
    *("._a.h5", ".DS_Store", ".a.h5.x.part.h5", "Thumbs.db", "desktop.ini", "sub/._b.h5"),
    *(".ipynb_checkpoints/a.h5", "__MACOSX/a.h5", "sub/.git/c.h5"),
)


def test_only_what_is_visible_is_listed(tmp_path: Path) -> None:
    for name in (*SEEN, *HIDDEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in visible(tmp_path)]
    assert names == ["10.h5", "2.h5", "a.h5", "sub"]
    assert [path.name for path in visible(tmp_path, "*.h5")] == ["10.h5", "2.h5", "a.h5"]
    assert [path.name for path in visible(tmp_path, "*/*.h5")] == ["b.h5"]
    assert visible(tmp_path / "nowhere") == []


def test_a_hidden_folder_may_be_asked_for(tmp_path: Path) -> None:
    home = tmp_path / ".cache" / "clips"
    home.mkdir(parents=True)
    (home / "a.h5").touch()
    assert visible(home) == [home / "a.h5"]
