"""A signal to all is sent only where it is certain that Landlock keeps it in."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from circuit_script.execution import hardening
from circuit_script.execution.isolation import confine, landlock, mask, orphans, seccomp
from circuit_script.execution.isolation.orphans import PATIENCE, Homes, Orphans

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


def test_who_cannot_be_killed_is_stopped_once_and_no_more(kill: Any) -> None:
    left = Orphans(ZYGOTE, WORKER, UNDERTAKER, lambda _: False)
    for _ in range(4 * PATIENCE):
        left.kill()
    assert kill.to_all == [signal.SIGSTOP, signal.SIGCONT]


def test_one_that_cannot_be_killed_holds_back_the_slot_of_its_child_alone() -> None:
    homes = Homes()
    assert homes.left([STRAY], [10], [1]) == []
    assert homes.left([STRAY], [], []) == []
    assert homes.left([STRAY], [11], [2]) == [2]
    assert homes.left([STRAY, 20], [12], [3]) == []  # another child left one
    assert homes.left([STRAY], [20], []) == [3]
    assert homes.left([], [STRAY], []) == [1]


def test_a_slot_is_held_back_as_long_as_any_that_descends_from_its_child_may_be_there() -> None:
    homes = Homes()
    assert homes.left([20], [10], [1]) == []
    assert homes.left([21], [20], []) == []  # below the one before
    assert homes.left([21, 22], [21], []) == []  # with a number that was another's
    assert homes.left([], [21, 22], []) == [1]


def test_who_is_seen_before_its_child_is_collected_holds_back_its_slot() -> None:
    homes = Homes()
    assert homes.left([20], [], []) == []
    assert homes.left([20], [10], [1]) == []
    assert homes.left([], [20], []) == [1]


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
    confined.seal()
    assert confined.scoped is (version >= landlock.OLDEST)
    assert len(enforced) == confined.scoped
