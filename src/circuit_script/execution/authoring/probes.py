"""Which lines of an app ran, counted by a probe on each: for tests only.

A probe is an assignment before a statement, into memory that all processes of a test session share. So nothing is lost
when a child is killed, no limit is spent on a tracer, and strict isolation is no hindrance: no file is written.

The memory is a header (its length in 8 bytes, then JSON: the file's path and where its lines begin) and one byte per
line of each file.
"""

from __future__ import annotations

import ast
import json
import mmap
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source
from types import CodeType, ModuleType
from typing import Any

NAME = "__circuit_probes__"
HEAD = 8
NOT_COUNTED = re.compile(r"#\s*pragma:\s*no cover\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef

memories: dict[str, memoryview] = {}  # by file: where its probes write, for whoever runs what `_Loader` has compiled


def counted(source: str) -> frozenset[int]:
    """The lines of statements, by their numbers, that a test could run: without docstrings, ``...``, what only a type
    checker reads, and what says ``# pragma: no cover``. Raises SyntaxError."""
    return frozenset(each.lineno for each in _statements(ast.parse(source).body, _left_out(source)))


def lines_of(source: str, line: int) -> frozenset[int]:
    """Those of `counted` in the body of the function whose first line, decorators included, is ``line``. Raises
    SyntaxError."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function) and line in (node.lineno, *(each.lineno for each in node.decorator_list)):
            return counted(source) & {each.lineno for each in _statements(node.body, _left_out(source))}
    return frozenset()


def header(offsets: Mapping[str, int]) -> bytes:
    """What the memory begins with."""
    said = json.dumps(dict(offsets)).encode()
    return len(said).to_bytes(HEAD, "big") + said


def install(descriptor: int) -> None:
    """Let every file that the memory names have probes, where this process imports it from now on."""
    memory = mmap.mmap(descriptor, 0)
    length = int.from_bytes(memory[:HEAD], "big")
    sys.meta_path.insert(0, _Finder(json.loads(memory[HEAD : HEAD + length]), memoryview(memory)))


class _Finder(MetaPathFinder):
    def __init__(self, offsets: Mapping[str, int], memory: memoryview) -> None:
        self._offsets = offsets
        self._memory = memory

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Only for files that are counted: all others are for who comes next."""
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        if (start := self._offsets.get(spec.loader.path)) is None:
            return None
        spec.loader = _Loader(name, spec.loader.path, self._memory[start:])
        return spec


class _Loader(SourceFileLoader):
    """Compiles each time: what has probes must not lie in ``__pycache__``."""

    def __init__(self, name: str, path: str, memory: memoryview) -> None:
        super().__init__(name, path)
        self._memory = memory

    def get_code(self, fullname: str) -> CodeType:
        data = self.get_data(self.path)
        source = decode_source(data)
        tree = ast.parse(data, self.path)
        _put_probes(tree.body, _left_out(source))
        memories[self.path] = self._memory
        named = ast.parse(f"{NAME} = __import__('sys').modules[{__name__!r}].memories[{self.path!r}]").body
        first = next((n for n, each in enumerate(tree.body) if not _stays_first(each)), len(tree.body))
        tree.body[first:first] = named
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code


def _left_out(source: str) -> frozenset[int]:
    """Lines that ask not to be counted."""
    return frozenset(n for n, line in enumerate(source.split("\n"), 1) if NOT_COUNTED.search(line))


def _statements(body: Sequence[ast.stmt], left_out: frozenset[int]) -> Iterator[ast.stmt]:
    for each in body:
        if each.lineno in left_out or _says_nothing(each):
            continue
        yield each
        for inner in _bodies(each, left_out):
            yield from _statements(inner, left_out)


def _put_probes(body: list[ast.stmt], left_out: frozenset[int]) -> None:
    """Before each statement that counts, in place; what must come first in its file is told of afterwards."""
    probed: list[ast.stmt] = []
    late: list[ast.stmt] = []
    for each in body:
        if each.lineno in left_out or _says_nothing(each):
            probed.append(each)
            continue
        if _comes_first(each):
            probed.append(each)
            late.append(_probe(each))
            continue
        for inner in _bodies(each, left_out):
            _put_probes(inner, left_out)
        probed += [*late, _probe(each), each]
        late = []
    body[:] = [*probed, *late]


def _bodies(statement: ast.stmt, left_out: frozenset[int]) -> Iterator[list[ast.stmt]]:
    """Blocks within a statement, without those that are left out."""
    if isinstance(statement, ast.If) and _for_types_only(statement.test):
        yield statement.orelse
        return
    for name in ("body", "orelse", "finalbody"):
        if inner := getattr(statement, name, None):
            yield inner
    for each in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        first = each.lineno if isinstance(each, ast.ExceptHandler) else each.pattern.lineno
        if first not in left_out:
            yield each.body


def _says_nothing(statement: ast.stmt) -> bool:
    """A docstring, or the dots of a body that there is not."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _stays_first(statement: ast.stmt) -> bool:
    """What nothing may stand before: a docstring, imports of the future."""
    return _says_nothing(statement) or _comes_first(statement)


def _comes_first(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _for_types_only(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _probe(statement: ast.stmt) -> ast.stmt:
    """``__circuit_probes__[line] = 1``, at the statement's own place: who looks for a line finds the author's."""
    at: dict[str, Any] = {
        "lineno": statement.lineno,
        "col_offset": statement.col_offset,
        "end_lineno": statement.lineno,
        "end_col_offset": statement.col_offset,
    }
    memory = ast.Name(id=NAME, ctx=ast.Load(), **at)
    place = ast.Subscript(value=memory, slice=ast.Constant(value=statement.lineno, **at), ctx=ast.Store(), **at)
    return ast.Assign(targets=[place], value=ast.Constant(value=1, **at), **at)
