"""Rooms that import lazily offer every name that they promise; lists of names agree with what they name."""

from __future__ import annotations

import importlib
import sys

import pytest

from mirage_sim.agents import AGENT_NAMES, AGENTS
from mirage_sim.errors import LibraryError
from mirage_sim.evaluation.config import VARIANT_NAMES, WAY_NAMES
from mirage_sim.evaluation.revisits import WAYS
from mirage_sim.evaluation.variants import VARIANTS
from mirage_sim.libraries import from_library


@pytest.mark.parametrize("room", ["mirage_sim", "mirage_sim.envs", "mirage_sim.agents", "mirage_sim.scenes"])
def test_every_promised_name_is_there(room: str) -> None:
    package = importlib.import_module(room)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        package.nothing_of_this_name  # noqa: B018


def test_names_known_without_torch_are_those_of_what_they_name() -> None:
    assert tuple(AGENTS) == AGENT_NAMES
    assert tuple(VARIANTS) == VARIANT_NAMES
    assert tuple(WAYS) == WAY_NAMES


def test_a_library_that_is_missing_is_named() -> None:
    with pytest.raises(LibraryError, match="no_such_library is needed here and is not installed"):
        from_library("no_such_library.part", "thing")
    assert "no_such_library" not in sys.modules
