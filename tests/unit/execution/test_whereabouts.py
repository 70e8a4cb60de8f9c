"""Which line is the author's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from circuit_script.execution import whereabouts
from circuit_script.execution.host.stacks import line_of_stack

STACK = """Thread 0x00007f01 (most recent call first):
  File "/app/background.py", line 3 in waits
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.11/socket.py", line 706 in readinto
  File "/app/.venv/lib/python3.11/site-packages/vendor/client.py", line 44 in get
  File "/app/lib/calls.py", line 12 in ask
  File "/app/app.py", line 7 in handler
  File "/opt/circuit_script/execution/child/child.py", line 197 in _handle
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(whereabouts, "_folder", "")
    monkeypatch.setattr(whereabouts, "_told", None)
    return


def compiled(file: str, source: str) -> dict[str, object]:
    names: dict[str, object] = {"sys": sys}
    exec(compile(source, file, "exec"), names)
    return names


def frame_in(file: str) -> FrameType:
    """A frame of a function of the library, called by one in ``file``, which is called by one of the app."""
    inner = compiled("/usr/lib/python3.11/json.py", "def look(): return sys._getframe()")["look"]
    middle = compiled(file, "def ask(look):\n\n    return look()")["ask"]
    outer = compiled("/app/app.py", "def handler(ask, look): return ask(look)")["handler"]
    assert callable(outer)
    found = outer(middle, inner)
    assert isinstance(found, FrameType)
    return found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("/app/lib/calls.py", "lib/calls.py:3"),
        ("/app/.venv/lib/python3.11/site-packages/vendor.py", ""),
        ("/application/calls.py", ""),
        ("/opt/circuit_script/execution/authoring/calls.py", ""),
    ],
)
def test_it_is_the_innermost_in_the_apps_folder_but_not_of_what_is_installed_there(file: str, line: str) -> None:
    whereabouts.know("/app")
    found = whereabouts.line_of_frame(frame_in(file))
    assert found == (line or "app.py:1")


def test_until_the_folder_is_known_no_line_is_the_authors() -> None:
    assert whereabouts.line_of_frame(sys._getframe()) == ""


def test_an_error_that_was_raised_from_another_has_the_line_of_its_cause() -> None:
    raises = compiled("/app/lib/calls.py", "\ndef ask():\n    raise KeyError('a')")["ask"]
    assert callable(raises)
    with pytest.raises(KeyError) as caught:
        raises()
    error = ValueError("b")
    error.__cause__ = caught.value

    whereabouts.know("/app")
    assert whereabouts.line_of_error(error) == "lib/calls.py:3"
    whereabouts.know("/elsewhere")
    assert whereabouts.line_of_error(error) == ""


def test_errors_that_go_round_in_circles_are_looked_at_once() -> None:
    whereabouts.know("/app")
    one, other = ValueError("a"), ValueError("b")
    one.__context__, other.__context__ = other, one
    assert whereabouts.line_of_error(one) == ""


def test_the_line_is_told_where_the_parent_reads_it_and_fits() -> None:
    memory = memoryview(bytearray(8))
    whereabouts.tell_in(memory)
    whereabouts.tell("a/very/long/name.py:12")
    assert bytes(memory) == b"a/very/l"


def test_of_a_stack_it_is_that_of_the_thread_which_was_interrupted() -> None:
    assert line_of_stack(STACK, Path("/app")) == "lib/calls.py:12"
    assert line_of_stack(STACK.partition("Current")[0], Path("/app")) == "background.py:3"
    assert line_of_stack(STACK, Path("/elsewhere")) == ""
    assert line_of_stack(STACK, None) == ""
    assert line_of_stack("", Path("/app")) == ""
    assert line_of_stack("nonsense\0 Current thread", Path("/app")) == ""
