"""Libraries that speak HTTP by themselves: each request is told to the broker before it leaves.

A library is patched when it is imported, never imported for it; outside of an execution nothing changes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_HERE = "circuit_script.execution.child.hooked"
# The module whose classes are patched, and ours whose ``patch`` does it.
LIBRARIES = {
    "http.client": f"{_HERE}.of_stdlib",
    "urllib3.connectionpool": f"{_HERE}.of_urllib3",
    "httpcore._async.connection_pool": f"{_HERE}.of_httpcore",
    "httpcore._sync.connection_pool": f"{_HERE}.of_httpcore",
    "httpcore2._async.connection_pool": f"{_HERE}.of_httpcore",
    "httpcore2._sync.connection_pool": f"{_HERE}.of_httpcore",
    "aiohttp.connector": f"{_HERE}.of_aiohttp",
    "aiohttp.client": f"{_HERE}.of_aiohttp",
    "uvloop": f"{_HERE}.of_uvloop",
}
_patched: set[str] = set()


def install() -> None:
    """Patch what is imported, and what will be."""
    for name in LIBRARIES:
        if (module := sys.modules.get(name)) is not None:
            _patch(module)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _patch(module: ModuleType) -> None:
    if module.__name__ not in _patched:
        _patched.add(module.__name__)
        import_module(LIBRARIES[module.__name__]).patch(module)


class _Finder(MetaPathFinder):
    """Finds a library where it would have been found, and has it patched when it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in LIBRARIES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        _patched.discard(module.__name__)  # it may be loaded anew
        _patch(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
