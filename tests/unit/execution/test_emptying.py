"""Folders that untrusted code has filled are removed, and slots that are not empty again are not used again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from circuit_script.execution.isolation import root
from circuit_script.execution.isolation.emptying import remove
from circuit_script.execution.isolation.slots import FileSystems, Folders, Janitor, NoSlots


def test_neither_depth_nor_closed_folders_nor_links_keep_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    inner = os.open(folder, os.O_RDONLY)
    for depth in range(150):
        os.mkdir("d" * 200, dir_fd=inner)
        os.symlink(outside, "another", dir_fd=inner)
        outer, inner = inner, os.open("d" * 200, os.O_RDONLY, dir_fd=inner)
        if depth > 0:
            os.fchmod(outer, 0)
        os.close(outer)
    os.close(inner)
    assert remove(str(folder))
    assert not folder.exists()
    assert (outside / "kept").read_text() == "x"
    assert remove(str(folder)), "it is gone already"


def test_what_is_no_folder_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    assert not remove(str(tmp_path / "file"))
    assert not remove(str(tmp_path / "link"))
    assert len(os.listdir(tmp_path)) == 2


class Unable:
    """A janitor whose mounts fail."""

    descriptor = -1

    def renewed(self, slot: int) -> bool:
        return False


def test_a_slot_that_cannot_be_renewed_goes_to_nobody() -> None:
    slots = FileSystems(cast(Janitor, Unable()))
    given: list[Any] = []
    for _ in range(root.MOST_SLOTS):
        given.append(slots.take())
        slots.give_back(given[-1])
    assert sorted(given) == list(range(root.MOST_SLOTS))
    with pytest.raises(NoSlots):
        slots.take()


def test_in_place_each_child_has_a_folder_that_was_not_there(tmp_path: Path) -> None:
    slots = Folders(str(tmp_path))
    first = slots.take()
    (tmp_path / str(first) / "left").write_text("of a tenant")
    cleaner = slots.give_back(first)
    assert os.waitpid(cleaner, 0)[1] == 0
    second = slots.take()
    assert os.listdir(tmp_path) == [str(second)]
    assert os.listdir(tmp_path / str(second)) == []
    assert slots.give_back(second) == 0
