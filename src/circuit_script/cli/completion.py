"""What the shell completes besides verbs and options."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from circuit_script.config import load_settings
from circuit_script.errors import CircuitError

DECORATORS = frozenset({"trigger", "endpoint"})


def complete_handler(ctx: typer.Context, incomplete: str) -> list[str]:
    """Handlers whose name begins so. The app is read, not imported: Tab must be quick."""
    folder = Path(ctx.params.get("folder") or ".")
    try:
        names = sorted({name for path in _sources(folder) for name in _handlers(path)})
    except (CircuitError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def _sources(folder: Path) -> list[Path]:
    app = folder / load_settings(folder).app.replace(".", "/")
    return [*app.rglob("*.py"), *([app.with_suffix(".py")] if app.with_suffix(".py").exists() else [])]


def _handlers(path: Path) -> Iterator[str]:
    try:
        module = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError):
        return
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in _decorated(node.body))
        else:
            yield from _decorated([node])


def _decorated(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_handler(node):
            yield node.name


def _is_handler(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    called = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
    return any(getattr(each, "attr", getattr(each, "id", "")) in DECORATORS for each in called)
