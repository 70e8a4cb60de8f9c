"""Lines are counted by probes: which ones, and that the code stays what it is."""

from __future__ import annotations

import importlib
import mmap
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from circuit_script.execution.authoring import probes

SOURCE = '''"""A module."""
from __future__ import annotations
from __future__ import division

import enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from decimal import Decimal


class Speaks(Protocol):
    def say(self) -> str: ...


class Colour(enum.Enum):
    """Two."""

    RED = 1
    BLUE = 2


def decorated(function):
    return function


@decorated
@decorated
def judge(number):
    """What it is."""
    if number < 0:
        return "less"
    elif number == 0:
        return "none"
    else:
        found = "more"
    try:
        1 / (number - 1)
    except ZeroDivisionError:
        found = "one"
    finally:
        pass
    match number:
        case 7:
            found = "seven"
        case _:
            pass
    for _ in ():
        continue
    if number > 1000:  # pragma: no cover
        return "much"
    return found


async def later(number):
    async with nothing:
        return [
            number
            for _ in range(2)
        ]
'''


@pytest.fixture
def module(tmp_path: Path) -> Iterator[tuple[ModuleType, mmap.mmap, int]]:
    """SOURCE imported with probes, the memory, and where its lines begin."""
    file = tmp_path / "probed_module.py"
    file.write_text(SOURCE)
    start = len(probes.header({str(file): 1 << 40}))
    descriptor = os.memfd_create("lines")
    os.truncate(descriptor, start + SOURCE.count("\n") + 2)
    memory = mmap.mmap(descriptor, 0)
    head = probes.header({str(file): start})
    memory[: len(head)] = head
    before = list(sys.meta_path)
    probes.install(descriptor)
    os.close(descriptor)
    sys.path.insert(0, str(tmp_path))
    try:
        yield importlib.import_module("probed_module"), memory, start
    finally:
        sys.path.remove(str(tmp_path))
        sys.meta_path[:] = before
        sys.modules.pop("probed_module", None)


def line(words: str) -> int:
    return next(number for number, text in enumerate(SOURCE.split("\n"), 1) if text.strip() == words)


def test_statements_count_and_what_says_nothing_does_not() -> None:
    counted = probes.counted(SOURCE)
    assert {line("import enum"), line("RED = 1"), line('found = "seven"'), line("def judge(number):")} <= counted
    for words in ('"""A module."""', '"""Two."""', "from decimal import Decimal", "def say(self) -> str: ...", "else:"):
        assert (line(words) in counted) == words.startswith("def")
    for words in ("if number > 1000:  # pragma: no cover", 'return "much"', "except ZeroDivisionError:"):
        assert line(words) not in counted


def test_a_functions_lines_are_those_of_its_body_found_by_its_first_decorator() -> None:
    lines = probes.lines_of(SOURCE, line("@decorated"))
    assert min(lines) == line("if number < 0:")
    assert max(lines) == line("return found")
    assert probes.lines_of(SOURCE, line("def judge(number):")) == lines
    assert probes.lines_of(SOURCE, 1) == frozenset()


def test_a_function_that_asks_not_to_be_counted_has_no_lines_that_could_be_missed() -> None:
    source = "def loads(context):  # pragma: no cover\n    return 1\n"
    assert probes.counted(source) == probes.lines_of(source, 1) == frozenset()


def test_what_ran_is_marked_and_the_code_does_what_it_did(module: tuple[ModuleType, mmap.mmap, int]) -> None:
    probed, memory, start = module

    def ran(words: str) -> bool:
        return bool(memory[start + line(words)])

    assert probed.__doc__ == "A module."
    assert probed.judge.__doc__ == "What it is."
    assert [each.name for each in probed.Colour] == ["RED", "BLUE"]
    assert probed.judge.__code__.co_firstlineno == line("@decorated")
    assert ran("from __future__ import division")
    assert ran("BLUE = 2")
    assert not ran("if number < 0:")
    assert probed.judge(0) == "none"
    assert (ran('return "none"'), ran('found = "more"'), ran('return "less"')) == (True, False, False)
    assert probed.judge(1) == "one"
    assert (ran('found = "one"'), ran('found = "seven"'), ran("continue")) == (True, False, False)
    assert probed.judge(7) == "seven"
    assert ran('found = "seven"')
    marked = {number for number in range(1, SOURCE.count("\n") + 1) if memory[start + number]}
    assert marked <= probes.counted(SOURCE)


def test_a_module_that_is_run_as_a_script_counts_too(module: tuple[ModuleType, mmap.mmap, int]) -> None:
    _, memory, start = module
    memory[start:] = bytes(len(memory) - start)
    found = runpy.run_module("probed_module", run_name="__main__")
    assert found["__doc__"] == "A module."
    assert found["judge"](0) == "none"
    assert memory[start + line('return "none"')]


def test_probed_code_is_not_cached(module: tuple[ModuleType, mmap.mmap, int]) -> None:
    assert not list(Path(str(module[0].__file__)).parent.glob("__pycache__/*"))
