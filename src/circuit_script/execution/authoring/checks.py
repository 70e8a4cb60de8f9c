"""Reads the author's modules once and finds what only looks done: a coroutine that nobody awaits.

Only what is certain is refused: a call that stands alone as a statement (or in a list, a condition or a variable that
nobody uses), of a name that nothing around it binds anew, and that leads through the module's globals (or ``self``, or
the handler's context) to an ``async def``. The rest is noticed when it happens: see `forgotten`.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeGuard

from circuit_script.errors import AppError
from circuit_script.execution.authoring.context import Context

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
    modules = modules_of(folder)
    trees = {module.__name__: tree for module in modules if (tree := _tree(module)) is not None}
    told = _Told.by(trees.values())
    found = [each for module in modules for each in forgotten_in(module, told)]
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


def forgotten_in(module: ModuleType, told: _Told | None = None) -> list[Forgotten]:
    """The calls of one module whose coroutines are dropped; ``told`` is of the whole app, else of this module."""
    tree = _tree(module)
    if tree is None:
        return []
    return list(_Reader(module, tree, told or _Told.by([tree])).read(tree.body, _Scope()))


def _tree(module: ModuleType) -> ast.Module | None:
    """The module's source; None when it has changed since it was imported, and is none any more."""
    try:
        return ast.parse(Path(str(module.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Told:
    """What an app does to names behind the back of their definitions: attributes that it sets (``any_attribute``: also
    such that it names while it runs), and globals that its functions set."""

    attributes: frozenset[str]
    names: frozenset[str]
    any_attribute: bool

    @classmethod
    def by(cls, trees: Iterable[ast.Module]) -> _Told:
        attributes: set[str] = set()
        names: set[str] = set()
        any_attribute = False
        for node in (node for tree in trees for node in ast.walk(tree)):
            match node:
                case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
                    attributes.add(name)
                case ast.Attribute(attr="__dict__" | "__setattr__") | ast.Name(id="setattr"):
                    any_attribute = True
                case ast.Global(names=several):
                    names.update(several)
                case ast.Name(id="globals"):
                    any_attribute = True
                case _:
                    pass
        return cls(frozenset(attributes), frozenset(names), any_attribute)

    def may_change(self, attribute: str) -> bool:
        return self.any_attribute or attribute in self.attributes


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a statement stands: the function around it, names that functions around it bind (and the class, for what
    stands in its body), and the class path. ``idle`` are variables of the function that nobody reads."""

    function: Function | ast.Lambda | None = None
    bound: frozenset[str] = frozenset()
    path: tuple[str, ...] = ()
    idle: frozenset[str] = frozenset()
    me: str | None = None  # the first parameter of the method around
    contexts: frozenset[str] = frozenset()  # parameters that are the handler's Context


class _Reader:
    def __init__(self, module: ModuleType, tree: ast.Module, told: _Told) -> None:
        self._module = module
        self._file = str(module.__file__)
        self._told = told
        self._twice = _bound_twice(tree.body)

    def read(self, body: list[ast.stmt], scope: _Scope) -> Iterator[Forgotten]:
        for statement in body:
            match statement:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield from self.read(statement.body, self._inside(statement, scope))
                case ast.ClassDef(name=name, body=inner):
                    path = (*scope.path, name) if scope.function is None else ("<locals>",)
                    yield from self._read_class(inner, _Scope(scope.function, scope.bound, path))
                case ast.Expr(value=value):
                    yield from self._dropped(value, scope)
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in scope.idle:
                    yield from self._dropped(value, scope)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name in scope.idle:
                    yield from self._dropped(value, scope)
                case _:
                    for block in _blocks(statement):
                        yield from self.read(block, scope)

    def _read_class(self, body: list[ast.stmt], scope: _Scope) -> Iterator[Forgotten]:
        """The body of a class: its own statements see the names that it binds, its methods do not."""
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        own = replace(scope, bound=scope.bound | _bound_by(body))
        for statement in body:
            yield from self.read([statement], scope if isinstance(statement, defined) else own)

    def _dropped(self, value: ast.expr, scope: _Scope) -> Iterator[Forgotten]:
        """Calls in an expression whose value nobody takes."""
        match value:
            case ast.Call(func=called):
                if _must_be_awaited(self._found(called, scope)):
                    yield Forgotten(self._file, value.lineno, ast.unparse(called), scope.function)
            case ast.ListComp(elt=each) | ast.SetComp(elt=each) | ast.GeneratorExp(elt=each):
                bound = {node.id for node in ast.walk(value) if _is_stored(node)}
                inner = replace(scope, bound=scope.bound | bound, contexts=scope.contexts - bound)
                yield from self._dropped(each, replace(inner, me=None) if scope.me in bound else inner)
            case ast.BoolOp(values=several) | ast.List(elts=several) | ast.Tuple(elts=several):
                for each in several:
                    yield from self._dropped(each, scope)
            case ast.IfExp(body=one, orelse=other):
                yield from self._dropped(one, scope)
                yield from self._dropped(other, scope)
            case _:
                pass

    def _inside(self, function: Function, scope: _Scope) -> _Scope:
        names = _bound_in(function)
        arguments = [*function.args.posonlyargs, *function.args.args]
        method = scope.path and scope.function is None and arguments
        me = arguments[0].arg if method and not _is_static(function) else None
        contexts = {each.arg for each in arguments if each.arg in names.once and self._is_context(each, function)}
        path = scope.path if scope.function is None else ()
        if me is not None and me not in names.once:
            me = None
        return _Scope(function, scope.bound | names.all, path, _idle_in(function), me, frozenset(contexts))

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
            getattr(each, "__module__", None) == "circuit_script.execution.authoring.handlers" for each in ours
        )

    def _found(self, called: ast.expr, scope: _Scope) -> Any:
        """What an expression leads to, without running anything of the author's; _NOTHING when that is not certain."""
        match called:
            case ast.Name(id=name) if name in scope.contexts:
                return Context
            case ast.Name(id=name) if name not in scope.bound and self._is_fixed(name, scope):
                return vars(self._module).get(name, _NOTHING)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == scope.me:
                return self._of_self(scope, attribute)
            case ast.Attribute(value=value, attr=name):
                owner = self._found(value, scope)
                certain = owner is Context or _is_platforms(owner) or not self._told.may_change(name)
                return _attribute(owner, name) if certain else _NOTHING
            case _:
                return _NOTHING

    def _is_fixed(self, name: str, scope: _Scope) -> bool:
        """Whether a global means the same wherever it is used: at the top of a module it may be bound again below."""
        return name not in self._told.names and (scope.function is not None or name not in self._twice)

    def _of_self(self, scope: _Scope, attribute: str) -> Any:
        """What ``self`` has by this name, if an instance of this class and of any below it has the same."""
        found: Any = self._module
        for name in scope.path:
            found = _attribute(found, name)
        if self._told.may_change(attribute) or not isinstance(found, type) or not _has_method(found, scope.function):
            return _NOTHING
        if any(not _is_platforms(each) and not self._is_authors(each) for each in found.__mro__[:-1]):
            return _NOTHING  # nobody knows what a library does to it
        several = [_attribute(each, attribute) for each in (found, *_below(found))]
        same = all(each is several[0] for each in several) or all(map(inspect.iscoroutinefunction, several))
        return several[0] if same else _NOTHING

    def _is_authors(self, found: type) -> bool:
        """Whether a class stands in the app's own modules, and finds its attributes as classes do."""
        file = getattr(sys.modules.get(found.__module__), "__file__", None) or ""
        plain = not {"__getattribute__", "__getattr__"} & vars(found).keys()
        return plain and not {"site-packages", "dist-packages"} & set(Path(file).parts) and file.endswith(".py")


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that a function binds: ``once`` are parameters that it does not bind again."""

    all: frozenset[str]
    once: frozenset[str]


def _bound_in(function: Function) -> _Names:
    arguments = function.args
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    parameters = {each.arg for each in several if each is not None}
    bound = _bound_by(function.body)
    return _Names(frozenset(parameters | bound), frozenset(parameters - bound))


def _bound_at(node: ast.AST) -> Iterable[str]:
    """The names that one node binds."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return (name,)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(each.asname or each.name).partition(".")[0] for each in names]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return (name,)
        case ast.MatchMapping(rest=str(name)):
            return (name,)
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return names  # it may be bound to something else by the time of the call
        case _:
            return ()


def _is_stored(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _idle_in(function: Function) -> frozenset[str]:
    """Variables of a function that are given values and never read, not even by the functions in it."""
    written: set[str] = set()
    read: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                written.add(name)
            case ast.Name(id="locals" | "vars" | "eval" | "exec" | "dir"):
                return frozenset()
            case ast.Name(id=name) | ast.AugAssign(target=ast.Name(id=name)):
                read.add(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                read.update(names)
            case _:
                pass
    return frozenset(written - read)


def _bound_by(body: list[ast.stmt]) -> frozenset[str]:
    """The names that the body of a function, a class or a module binds."""
    return frozenset(name for node in _own(body) for name in _bound_at(node))


def _bound_twice(body: list[ast.stmt]) -> frozenset[str]:
    counted = Counter(name for node in _own(body) for name in _bound_at(node))
    return frozenset(name for name, times in counted.items() if times > 1)


def _below(found: type) -> Iterator[type]:
    """Every class that derives from this one."""
    several: list[type] = type.__subclasses__(found)
    for each in several:
        yield each
        yield from _below(each)


def _has_method(found: type, function: Function | ast.Lambda | None) -> bool:
    """Whether the class is the one that this function stands in: another may have taken its name."""
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    method = inspect.unwrap(_attribute(found, function.name))
    first = min((function, *function.decorator_list), key=lambda node: node.lineno).lineno
    return isinstance(method, FunctionType) and method.__code__.co_firstlineno == first


def _must_be_awaited(found: Any) -> bool:
    """Whether a call of it does nothing before it is awaited: a coroutine function, or `CircuitDB.query`."""
    lazy = isinstance(found, FunctionType) and getattr(found, "must_be_awaited", False) is True
    return lazy or inspect.iscoroutinefunction(found)


def _is_platforms(found: Any) -> bool:
    """Whether a module, class or instance is the platform's: no app sets anything of it."""
    owner = found if isinstance(found, (ModuleType, type)) else type(found)
    name = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    return f"{name}.".startswith("circuit_script.")


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
    if isinstance(owner, ModuleType) and owner.__name__ == "circuit_script":
        return getattr(owner, name, _NOTHING)  # it imports some of its names when they are first used
    found = inspect.getattr_static(owner, name, _NOTHING)
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if isinstance(found, (FunctionType, type)) or not hasattr(type(found), "__get__"):
        return found
    return _NOTHING


def _is_static(function: Function) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in function.decorator_list)
