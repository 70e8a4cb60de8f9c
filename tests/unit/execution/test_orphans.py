"""A signal to all is sent only where it is certain that Landlock keeps it in."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from circuit_script.execution import hardening
from circuit_script.execution.isolation import confine, landlock, mask, orphans, seccomp
from circuit_script.execution.isolation.orphans import PATIENCE, Orphans

WORKER, ZYGOTE, STRAY, UNDERTAKER = 4_000_001, 4_000_002, 4_000_003, 4_000_004


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is killed instead; one who may not signal the worker asks here."""

    class Kill:
        def __init__(self) -> None:
            self.sent: list[tuple[int, int]] = []
            self.refused = True

        def __call__(self, pid: int, number: int) -> None:
            if (pid, number) != (WORKER, 0):
                self.sent.append((pid, number))
            elif self.refused:
                raise PermissionError

        @property
        def to_all(self) -> list[int]:
            return [number for pid, number in self.sent if pid == -1]

    found = Kill()
    monkeypatch.setattr(os, "kill", found)
    monkeypatch.setattr(os, "waitpid", lambda *_: (0, 0))
    monkeypatch.setattr(orphans, "children_of", lambda _: [STRAY])
    monkeypatch.setattr(orphans, "descendants_of", lambda _: [])
    return found


def swept(outside: int | None) -> None:
    left = Orphans(ZYGOTE, outside, UNDERTAKER, lambda _: False)
    for _ in range(PATIENCE):
        left.kill()
    orphans.end(outside, UNDERTAKER)


def test_behind_landlock_all_below_are_stopped_and_killed_at_one_stroke(kill: Any) -> None:
    swept(WORKER)
    assert kill.to_all == [signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL]
    stopped = kill.sent.index((-1, signal.SIGSTOP))
    assert kill.sent[stopped + 1] == (UNDERTAKER, signal.SIGCONT)  # who is to kill them should we be killed now


def test_who_may_not_signal_the_worker_for_another_reason_than_landlock_signals_nobody_else(kill: Any) -> None:
    """The worker has ended, say, and its number is that of a process of root's."""
    swept(None)
    assert kill.to_all == []
    assert (STRAY, signal.SIGKILL) in kill.sent


def test_where_landlock_does_not_hold_nobody_else_is_signalled(kill: Any) -> None:
    kill.refused = False
    swept(WORKER)
    assert kill.to_all == []


@pytest.mark.parametrize("version", [landlock.OLDEST - 1, landlock.OLDEST])
def test_a_standard_zygote_knows_whether_its_signals_are_kept_in(
    version: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    enforced: list[int] = []
    monkeypatch.setattr(landlock, "abi", lambda: version)
    monkeypatch.setattr(landlock, "_ruleset", lambda *_: 0)
    monkeypatch.setattr(landlock, "_enforce", enforced.append)
    monkeypatch.setattr(mask, "cover", lambda _: True)
    monkeypatch.setattr(seccomp, "install_usual", lambda: None)
    for name in ("drop_privileges", "die_with_parent"):
        monkeypatch.setattr(hardening, name, lambda *_: None)
    confined, _ = confine.zygote("standard", tmp_path, "", WORKER)
    assert confined.scoped is (version >= landlock.OLDEST)
    assert len(enforced) == confined.scoped
