from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.authoring.checks import check_awaits, forgotten_in, modules_of

Imported = Callable[[str], ModuleType]

TOP = """
import asyncio
import circuit_script
from circuit_script import CircuitDB, CircuitTrigger, Context, http, log, send_webhook, trigger

async def notify(lead): ...
def plain(lead): ...
"""


@pytest.fixture
def imported(tmp_path: Path) -> Iterator[Imported]:
    names: list[str] = []

    def load(source: str) -> ModuleType:
        name = f"author_{len(names)}"
        file = tmp_path / f"{name}.py"
        file.write_text(TOP + textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        names.append(name)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        del sys.modules[name]


def calls(module: ModuleType) -> list[str]:
    return [each.call for each in forgotten_in(module)]


@pytest.mark.parametrize(
    "call",
    [
        "CircuitDB.update('Contact', {})",
        "http.get('http://x/')",
        "send_webhook('sales', {})",
        "circuit_script.CircuitDB.insert('Contact', {})",
        "CircuitDB.query('Contact')",
        "circuit_script.http.post('http://x/')",
        "notify(1)",
        "asyncio.sleep(1)",
    ],
)
@pytest.mark.parametrize(
    "block",
    ["{}", "if 1:\n        {}", "for _ in ():\n        {}", "try:\n        {}\n    finally:\n        pass"],
)
def test_a_call_whose_coroutine_is_dropped_is_found(imported: Imported, call: str, block: str) -> None:
    module = imported(f"async def handler(context):\n    {block.format(call)}\n")
    (found,) = forgotten_in(module)
    assert found.call == call.partition("(")[0]
    assert Path(found.file).read_text().splitlines()[found.line - 1].strip() == call


@pytest.mark.parametrize(
    "body",
    [
        "await notify(1)",
        "task = notify(1)\n    await task",
        "asyncio.create_task(notify(1))",
        "asyncio.create_task(CircuitDB.query('Contact'))",
        "rows = CircuitDB.query('Contact').where(a=1)\n    await rows",
        "async for row in CircuitDB.query('Contact'):\n        pass",
        "await asyncio.gather(notify(1), notify(2))",
        "return notify(1)",
        "circuit_script.run(notify(1))",
        "plain(1)\n    log.info('x')\n    print('y')\n    context.add_error(1, 'z')",
        "notify = plain\n    notify(1)",
        "for notify in [plain]:\n        notify(1)",
        "def notify(lead): ...\n    notify(1)",
        "from os.path import join as notify\n    notify('a')",
        "match plain:\n        case notify:\n            notify(1)",
        "def inner(notify):\n        notify(1)\n    inner(plain)",
        "nobody_knows.update()",
        "(lambda: notify(1))",
        "plain(1).update()",
    ],
)
def test_what_is_awaited_handed_on_or_not_certain_is_left_alone(imported: Imported, body: str) -> None:
    assert calls(imported(f"async def handler(context, http=None):\n    {body}\n")) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("[CircuitDB.update('Contact', r) for r in context]", ["CircuitDB.update"]),
        ("(notify(r) for r in context)", ["notify"]),
        ("[await notify(r) for r in context]", []),
        ("[notify(1) for notify in [plain]]", []),
        ("context and CircuitDB.update('Contact', {})", ["CircuitDB.update"]),
        ("context and await notify(1)", []),
        ("notify(1) if context else http.get('http://x/')", ["notify", "http.get"]),
        ("notify(1), notify(2)", ["notify", "notify"]),
        ("x = CircuitDB.update('Contact', {})", ["CircuitDB.update"]),
        ("x: object = notify(1)", ["notify"]),
        ("x = [notify(r) for r in context]", ["notify"]),
        ("x = plain(1)", []),
        ("x = [notify(r) for r in context]\n    await asyncio.gather(*x)", []),
        ("x = notify(1)\n    def later():\n        return x", []),
        ("x = notify(1)\n    return locals()", []),
        ("global x\n    x = notify(1)", []),
        ("list(map(lambda r: CircuitDB.update('Contact', r), context))", []),
    ],
)
def test_a_coroutine_whose_value_nobody_takes_is_found_wherever_it_stands(
    imported: Imported, statement: str, found: list[str]
) -> None:
    assert calls(imported(f"async def handler(context):\n    {statement}\n")) == found


@pytest.mark.parametrize(
    "source",
    [
        """
        class Base:
            async def hook(self): ...
            def start(self):
                self.hook()
        class Plain(Base):
            def hook(self): ...
        """,
        """
        class Reg:
            def notify(lead=None): ...
            notify()
        """,
        """
        class Quiet:
            def __init__(self):
                self.send = lambda: None
            async def send(self): ...
            def start(self):
                self.send()
        """,
        """
        class Dynamic:
            def __init__(self, names):
                for name in names:
                    setattr(self, name, plain)
            async def send(self): ...
            def start(self):
                self.send()
        """,
        """
        def first(): ...
        first()
        async def first(): ...
        """,
        """
        def quiet():
            global notify
            notify = plain
        def start():
            notify(1)
        """,
        """
        class One:
            def send(self): ...
            def start(self):
                self.send()
        First = One
        class One:
            async def send(self): ...
        """,
        """
        class Sender:
            async def send(self): ...
        sender = Sender()
        sender.send = plain
        def start():
            sender.send(1)
        """,
    ],
)
def test_what_may_be_something_else_by_then_is_left_alone(imported: Imported, source: str) -> None:
    assert calls(imported(source)) == []


def test_methods_see_past_the_names_of_their_class_and_subclasses_may_agree(imported: Imported) -> None:
    module = imported(
        """
        class Base:
            def notify(lead=None): ...
            async def hook(self): ...
            async def start(self):
                self.hook()
                notify(1)
        class Other(Base):
            async def hook(self): ...
        """
    )
    assert calls(module) == ["self.hook", "notify"]


def test_what_another_module_sets_counts(imported: Imported, tmp_path: Path) -> None:
    imported("class Sender:\n    async def send(self): ...\n    def start(self):\n        self.send()\n")
    imported("def quiet(sender):\n    sender.send = plain\n")
    check_awaits(tmp_path)


def test_a_parameter_hides_the_global_of_its_name(imported: Imported) -> None:
    assert (
        calls(imported("async def handler(context, http, *, notify, **CircuitDB):\n    http.get()\n    notify()")) == []
    )


def test_methods_are_found_through_self_unless_it_is_bound_anew(imported: Imported) -> None:
    module = imported(
        """
        class Leads(CircuitTrigger):
            async def score(self, lead): ...
            def note(self, lead): ...
            async def good(self, context):
                await self.score(1)
                self.note(1)
                self.unknown(1)
            async def bad(self, context):
                self.score(1)
            async def other(self, context):
                self = context
                self.score(1)
            @staticmethod
            async def free(self):
                self.score(1)
        """
    )
    (found,) = forgotten_in(module)
    assert found.call == "self.score"
    assert found.within is not None
    assert getattr(found.within, "name", "") == "bad"


def test_a_checkpoint_is_found_where_the_parameter_is_the_context(imported: Imported) -> None:
    module = imported(
        """
        async def annotated(given: Context):
            given.checkpoint(upto=1)
        async def quoted(given: "Context"):
            given.checkpoint(upto=1)
        @trigger("Contact", "afterInsert")
        async def declared(context):
            context.checkpoint(upto=1)
        async def helper(context):
            context.checkpoint(upto=1)
        """
    )
    assert calls(module) == ["given.checkpoint", "given.checkpoint", "context.checkpoint"]


def test_the_cure_depends_on_what_stands_around_the_call(imported: Imported, tmp_path: Path) -> None:
    module = imported(
        """
        async def one(context):
            notify(1)
        def two(context):
            notify(1)
        if False:
            notify(1)
        """
    )
    cures = [each.cure for each in forgotten_in(module)]
    assert cures == [
        "Write `await notify(…)`.",
        "Write `circuit_script.run(notify(…))`, or make two an `async def` and await it.",
        "Call it in an `async def`, with `await` before it.",
    ]
    with pytest.raises(AppError) as refused:
        check_awaits(tmp_path)
    assert refused.value.page == "not-awaited"
    assert refused.value.cure == cures[0]
    assert refused.value.detail.count("is not awaited, so it never runs") == 3
    assert f"{module.__file__}:10: notify(…)" in refused.value.detail


def test_only_the_authors_own_modules_are_read(imported: Imported, tmp_path: Path) -> None:
    mine = imported("")
    library = imported("async def lazy():\n    notify(1)\n")
    library.__file__ = str(tmp_path / ".venv" / "lib" / "site-packages" / "lib.py")
    assert modules_of(tmp_path) == [mine]
    check_awaits(tmp_path)


def test_a_file_that_has_changed_since_its_import_is_no_error(imported: Imported) -> None:
    module = imported("async def handler(context):\n    notify(1)\n")
    Path(str(module.__file__)).write_text("def (")
    assert forgotten_in(module) == []
