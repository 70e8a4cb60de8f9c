"""Reads the author's modules once and finds what only looks done: a coroutine that nobody awaits.

Only what is certain is refused: a call that stands alone as a statement, of a name that no function around it binds
anew, and that leads through the module's globals (or ``self``, or the handler's context) to an ``async def``.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from circuit_script.errors import AppError
from circuit_script.execution.context import Context

MOST_TOLD = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One call whose coroutine is dropped. ``within`` is the function around it, None at the top of its module."""

    file: str
    line: int
    call: str
    within: Function | ast.Lambda | None

    @property
    def cure(self) -> str:
        match self.within:
            case ast.AsyncFunctionDef():
                return f"Write `await {self.call}(…)`."
            case ast.FunctionDef(name=name):
                return f"Write `circuit_script.run({self.call}(…))`, or make {name} an `async def` and await it."
            case _:
                return "Call it in an `async def`, with `await` before it."


def check_awaits(folder: Path) -> None:
    """Refuse the app when it forgets an ``await``. Raises AppError with every file and line, up to five."""
    found = [each for module in modules_of(folder) for each in forgotten_in(module)]
    if not found:
        return
    places = "; ".join(
        f"{each.file}:{each.line}: {each.call}(…) is not awaited, so it never runs" for each in found[:MOST_TOLD]
    )
    more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    raise AppError(f"{places}{more}.", cure=found[0].cure, page="not-awaited")


def modules_of(folder: Path) -> list[ModuleType]:
    """The modules that were imported from the app's folder, by their file; packages that it has installed are not."""
    found: dict[str, ModuleType] = {}
    loaded: tuple[Any, ...] = tuple(sys.modules.values())  # anything may stand there
    for module in loaded:
        file = getattr(module, "__file__", None)
        if isinstance(module, ModuleType) and isinstance(file, str) and file.endswith(".py"):
            path = Path(file)
            ours = not {"site-packages", "dist-packages"} & set(path.parts) and module.__name__ != "circuit_script"
            if ours and path.is_relative_to(folder) and not module.__name__.startswith("circuit_script."):
                found[file] = module
    return [found[file] for file in sorted(found)]


def forgotten_in(module: ModuleType) -> list[Forgotten]:
    """The calls of one module whose coroutines are dropped."""
    file = str(module.__file__)
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []  # it has changed since it was imported
    return list(_Reader(module, file).read(tree.body, _Scope()))


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a statement stands: the function around it, names that functions around it bind, and the class path."""

    function: Function | ast.Lambda | None = None
    bound: frozenset[str] = frozenset()
    path: tuple[str, ...] = ()
    me: str | None = None  # the first parameter of the method around
    contexts: frozenset[str] = frozenset()  # parameters that are the handler's Context


class _Reader:
    def __init__(self, module: ModuleType, file: str) -> None:
        self._module = module
        self._file = file

    def read(self, body: list[ast.stmt], scope: _Scope) -> Iterator[Forgotten]:
        for statement in body:
            match statement:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield from self.read(statement.body, self._inside(statement, scope))
                case ast.ClassDef(name=name, body=inner):
                    path = (*scope.path, name) if scope.function is None else ("<locals>",)
                    yield from self.read(inner, _Scope(scope.function, scope.bound, path))
                case ast.Expr(value=ast.Call(func=called)):
                    if inspect.iscoroutinefunction(self._found(called, scope)):
                        yield Forgotten(self._file, statement.lineno, ast.unparse(called), scope.function)
                case _:
                    for block in _blocks(statement):
                        yield from self.read(block, scope)

    def _inside(self, function: Function, scope: _Scope) -> _Scope:
        names = _bound_in(function)
        arguments = [*function.args.posonlyargs, *function.args.args]
        method = scope.path and scope.function is None and arguments
        me = arguments[0].arg if method and not _is_static(function) else None
        contexts = {each.arg for each in arguments if each.arg in names.once and self._is_context(each, function)}
        path = scope.path if scope.function is None else ()
        if me is not None and me not in names.once:
            me = None
        return _Scope(function, scope.bound | names.all, path, me, frozenset(contexts))

    def _is_context(self, argument: ast.arg, function: Function) -> bool:
        """Whether a parameter is the Context: it says so, or it is called so in a function with ``@trigger``."""
        annotation = argument.annotation
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return annotation.value.rpartition(".")[2] == Context.__name__
        if annotation is not None:
            return self._found(annotation, _Scope()) is Context
        decorated = [each.func for each in function.decorator_list if isinstance(each, ast.Call)]
        ours = (self._found(each, _Scope()) for each in decorated)
        return argument.arg == "context" and any(
            getattr(each, "__module__", None) == "circuit_script.execution.handlers" for each in ours
        )

    def _found(self, called: ast.expr, scope: _Scope) -> Any:
        """What an expression leads to, without running anything of the author's; _NOTHING when that is not certain."""
        match called:
            case ast.Name(id=name) if name in scope.contexts:
                return Context
            case ast.Name(id=name) if name == scope.me:
                return self._class(scope.path)
            case ast.Name(id=name) if name not in scope.bound:
                return vars(self._module).get(name, _NOTHING)
            case ast.Attribute(value=value, attr=name):
                return _attribute(self._found(value, scope), name)
            case _:
                return _NOTHING

    def _class(self, path: tuple[str, ...]) -> Any:
        found: Any = self._module
        for name in path:
            found = _attribute(found, name)
        return found if isinstance(found, type) else _NOTHING


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that a function binds: ``once`` are parameters that it does not bind again."""

    all: frozenset[str]
    once: frozenset[str]


def _bound_in(function: Function) -> _Names:
    arguments = function.args
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    parameters = {each.arg for each in several if each is not None}
    bound: set[str] = set()
    for node in _own(function.body):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound.update((each.asname or each.name).partition(".")[0] for each in names)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                bound.update(names)  # it may be bound to something else by the time of the call
            case _:
                pass
    return _Names(frozenset(parameters | bound), frozenset(parameters - bound))


def _own(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node of a function but those inside the functions and classes in it."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for inner in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield inner.body


def _attribute(owner: Any, name: str) -> Any:
    """An attribute as it stands, without properties or ``__getattr__`` being run."""
    if owner is _NOTHING:
        return _NOTHING
    found = inspect.getattr_static(owner, name, _NOTHING)
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if isinstance(found, (FunctionType, type)) or not hasattr(type(found), "__get__"):
        return found
    return _NOTHING


def _is_static(function: Function) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in function.decorator_list)
