"""Key files as people and interrupted processes leave them."""

from __future__ import annotations

import os
from pathlib import Path

from circuit_script.config import load_settings
from circuit_script.secrets.keys import Keys, make_key
from circuit_script.secrets.rotation import begin_in_file, end_in_file


def test_a_rotation_leaves_out_what_people_wrote_beside_the_key(tmp_path: Path) -> None:
    keys = Keys(load_settings(tmp_path))
    sealed = keys.seal("token", "x")
    path = tmp_path / ".circuit" / "secrets.key"
    path.write_text(f"# prod\n{path.read_text()}# made by ops, 2026\n")
    keys = Keys(load_settings(tmp_path))
    first = keys.cipher()
    second = begin_in_file(keys, {first.key})
    assert second.key != first.key
    assert second.open(sealed, "x") == "token"
    end_in_file(keys)
    assert Keys(load_settings(tmp_path)).open(sealed, "x") == "token"


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    path.with_suffix(f".{os.getpid()}").write_text("half a k")  # in a container, numbers come again
    make_key(path)
    assert len(path.read_text().strip()) == 44
    assert path.stat().st_mode & 0o777 == 0o600
