"""Settings that cannot be hidden leave the process as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from circuit_script.execution.isolation import kernel, mask


def test_a_namespace_without_a_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where AppArmor lets nobody map a user: what enters such a namespace is nobody, for good."""
    unshared = []

    def unshare(flags: int) -> None:
        if flags == kernel.CLONE_NEWNS:
            raise PermissionError
        unshared.append(os.getpid())
        os._exit(1) if os.getpid() != me else pytest.fail("this process has left its namespace")

    def opened(path: str, *_: Any) -> Any:
        raise PermissionError(path)

    me = os.getpid()
    monkeypatch.setattr(kernel, "unshare", unshare)
    monkeypatch.setattr(mask, "open", opened, raising=False)
    (tmp_path / ".circuit").mkdir()
    assert mask.cover([str(tmp_path / ".circuit")]) is False
    assert unshared == []
