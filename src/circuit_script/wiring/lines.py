"""Which lines of an app its tests run, whichever process runs them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import decode_source
from pathlib import Path

from circuit_script.config import Settings
from circuit_script.execution.authoring import probes
from circuit_script.execution.outcome import HandlerSpec as HandlerSpec
from circuit_script.releases.records import files_of

TESTS = ("tests", "test")
TEST_FILES = ("test_*.py", "*_test.py", "conftest.py")
FURTHEST = 1 << 40  # no offset is longer in the header


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the app: its text, and which of its lines count."""

    text: str
    counted: frozenset[int]


class Lines:
    """The lines of the app in the settings' folder, without tests and what ``[test] omit`` names; `descriptor` is for
    the processes that run them (`open_bench`), and for this one with `install`."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.folder.resolve()
        self._sources = dict(_sources(self._folder, settings.test.omit))
        end = len(probes.header(dict.fromkeys(self._sources, FURTHEST)))
        self._offsets = {}
        for path, source in self._sources.items():
            self._offsets[path] = end
            end += source.text.count("\n") + 2  # lines count from 1, and the last may have no end
        self.descriptor = os.memfd_create("circuit-lines")
        os.truncate(self.descriptor, end)
        self._memory = mmap.mmap(self.descriptor, 0)
        said = probes.header(self._offsets)
        self._memory[: len(said)] = said

    def install(self) -> None:
        """Count what this process imports of the app from now on, too."""
        probes.install(self.descriptor)

    def close(self) -> None:
        """Free the descriptor; what was seen until now can still be read."""
        os.close(self.descriptor)

    def seen(self) -> dict[str, dict[str, list[int]]]:
        """By each file's path within the app: the lines that count, and those of them that ran."""
        found = {}
        for path, source in self._sources.items():
            start = self._offsets[path]
            ran = [line for line in sorted(source.counted) if self._memory[start + line]]
            name = os.path.relpath(path, self._folder)
            found[name] = {"counted": sorted(source.counted), "ran": ran}
        return found

    def of_handlers(self, handlers: Sequence[HandlerSpec]) -> dict[str, tuple[str, list[int]]]:
        """By handler: its file's path within the app, and the lines of its function that count. One whose function is
        not found in the app's files is left out."""
        found = {}
        for spec in handlers:
            if (source := self._sources.get(spec.file)) is not None:
                lines = probes.lines_of(source.text, spec.line)
                found[spec.name] = (os.path.relpath(spec.file, self._folder), sorted(lines))
        return found

    def unmeasured(self, handlers: Sequence[HandlerSpec]) -> dict[str, str]:
        """By handler: its file within the app, where that is taken for a test, so that no line of it counts."""
        found = {}
        for spec in handlers:
            path = Path(spec.file)
            if path.is_relative_to(self._folder) and _is_test(within := path.relative_to(self._folder)):
                found[spec.name] = str(within)
        return found


def _sources(folder: Path, omit: Sequence[str]) -> Iterator[tuple[str, Source]]:
    for path in sorted(files_of(folder)):
        within = path.relative_to(folder)
        if path.suffix != ".py" or _is_other(folder, within) or any(fnmatchcase(str(within), each) for each in omit):
            continue
        try:
            text = decode_source(path.read_bytes())  # its lines end as Python counts them
            yield str(path), Source(text, probes.counted(text))
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue  # who imports it hears of it


def _is_other(folder: Path, within: Path) -> bool:
    """A test, or a file of an environment."""
    return _is_test(within) or any((folder / each / "pyvenv.cfg").exists() for each in [*within.parents][:-1])


def _is_test(within: Path) -> bool:
    return not {*within.parts[:-1]}.isdisjoint(TESTS) or any(fnmatchcase(within.name, each) for each in TEST_FILES)
