"""What an author's handler can do, and how it is told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.host.pool import PARKED, Pool
from circuit_script.execution.outcome import Breached, Failed, Succeeded
from tests.integration.execution.conftest import PoolOf, Recorder, alive, descriptors, until

APP = """
@trigger("Contact", ["afterInsert"])
async def writes(context):
    for record in context.new_records:
        async with context.record(record):
            if record.get("bad"):
                raise ValueError("bad one")
            await CircuitDB.update("Contact", {"id": record.id, "score": 5})

@trigger("Contact", ["afterInsert"])
def plain(context):
    for record in context.new_records:
        if record.get("bad"):
            context.add_error(record, "no address")
        with context.record(record):
            print("seen", record.id)
            if record.get("worse"):
                raise KeyError("worse")

class Contacts(CircuitTrigger):
    @trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=50, limits={"wall_time": 5})
    @trigger("Task", "afterDelete")
    async def everything(self, context):
        '''Do everything.'''
        assert context.object == "Contact" and context.event_name == "afterInsert"
        assert context.tenant == "acme" and context.event == {"raw": "1"}
        record = context.new_records[0]
        assert context.changed(record, "name") and not context.changed(record, "id")
        assert context.old_records == [{"id": "1"}]
        found = await CircuitDB.query("Contact", {"name": "Ada"}, order_by="-name", limit=3)
        assert found[0].id == "7"
        assert (await CircuitDB.get("Contact", "gone")) is None
        assert [r.id for r in await CircuitDB.get("Contact", ["a", "b"])] == ["a", "b"]
        assert await CircuitDB.insert("Contact", [{"id": "n"}]) == ["n"]
        await CircuitDB.upsert("Contact", {"id": "u"})
        await CircuitDB.delete("Contact", ["d", record])
        answer = await http.post("http://x/", json={"a": 1}, timeout=3)
        assert answer.is_success and answer.json() == {"answer": 42}
        assert await send_webhook("sales", {"hot": 1}, record=record) == "effect-1"
        log.info("done", grade="A")
        assert context.limits.callouts.ceiling == 50
        assert context.limits.wall_time.left < 5

@trigger("Contact", ["afterInsert"])
async def raises(context):
    for record in context.new_records:
        if record.id == "2":
            raise RuntimeError("no \\udcff luck")

@trigger("Contact", ["afterInsert"])
async def refused(context):
    from circuit_script.execution.session import session
    await session().request("nonsense", {}, object)

@trigger("Contact", ["afterInsert"])
async def unsendable(context):
    await CircuitDB.update("Contact", [{"id": "1", "what": object()}])

@trigger("Contact", ["afterInsert"])
async def threads(context):
    await asyncio.gather(*[asyncio.to_thread(time.sleep, 0.01) for _ in range(3)])
    asyncio.create_task(asyncio.sleep(60))

@trigger("Contact", ["afterInsert"])
async def gathers(context):
    async def one(record):
        async with context.record(record):
            await CircuitDB.update("Contact", {"id": record.id})
    await asyncio.gather(*map(one, context.new_records))

@trigger("Contact", ["afterInsert"])
def who(context):
    log.info(os.getpid())

@trigger("Contact", ["afterInsert"])
def environment(context):
    log.info(str(sorted(os.environ)))
    log.info([l for l in open("/proc/self/status") if l.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])

@trigger("Contact", ["afterInsert"])
def connects(context):
    import socket
    from concurrent.futures import ThreadPoolExecutor
    def connect():
        try:
            socket.create_connection(("127.0.0.1", 1), 1)
        except OSError:
            pass
    connect()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(connect).result()
    try:
        connect()
    except BaseException:
        pass
"""


async def test_a_record_that_raises_fails_alone(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("writes", records=[{"id": "1"}, {"id": "2", "bad": 1}, {"id": "3"}], broker=broker)
    assert isinstance(outcome, Succeeded)
    assert outcome.errors == {1: "ValueError: bad one"}
    assert [asked["record"] for _, asked in broker.asked] == [0, 2]
    assert broker.lines[0]["record"] == 1
    assert "bad one" in broker.lines[0]["context"]["traceback"]


async def test_a_plain_function_marks_records_and_its_prints_are_logged(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    records = [{"id": "1"}, {"id": "2", "bad": 1}, {"id": "3", "worse": 1}]
    outcome = await bench.run("plain", records=records, broker=broker)
    assert isinstance(outcome, Succeeded)
    assert outcome.errors == {1: "no address", 2: "KeyError: 'worse'"}
    assert broker.messages[:3] == ["seen 1", "seen 2", "seen 3"]
    assert [line["record"] for line in broker.lines[:3]] == [0, 1, 2]


async def test_a_method_reaches_the_whole_api(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run(
        "Contacts.everything", records=[{"id": "1", "name": "Ada"}], old=[{"id": "1"}], broker=broker, wall_time=5
    )
    assert outcome == Succeeded(broker.usage)
    assert [verb for verb, _ in broker.asked] == ["query", "get", "get", "dml", "dml", "dml", "http", "send"]
    assert broker.asked[5][1]["rows"] == [{"id": "d"}, {"id": "1", "name": "Ada"}]
    assert broker.asked[6][1]["body"] == b'{"a":1}'
    assert broker.lines[-1]["context"] == {"grade": "A"}
    assert 0 < broker.usage.cpu_time <= broker.usage.wall_time < 2


WRAPPED = """
from dataclasses import dataclass

@dataclass  # so it has no hash
class Loud:
    inner: object

    def __get__(self, owner, kind):
        return Loud(self.inner.__get__(owner))

    def __call__(self, context):
        print("called")
        return self.inner(context)

class Contacts(CircuitTrigger):
    @Loud
    @trigger("Contact", ["afterInsert"])
    def wrapped(self, context):
        print("inside")
"""


async def test_a_method_may_be_wrapped_in_an_object_that_cannot_be_a_key(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(WRAPPED), Recorder()
    assert isinstance(await bench.run("Contacts.wrapped", broker=broker), Succeeded)
    assert broker.messages == ["called", "inside"]


async def test_the_manifest_tells_where_each_handler_stands(pool_of: PoolOf, tmp_path: Path) -> None:
    await pool_of("pass")
    (tmp_path / "app.py").write_text("from circuit_script import *\nimport asyncio, os, time\n" + APP)
    pool = Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None)
    manifest = await pool.start()
    await pool.stop()
    spec = {each.name: each for each in manifest.handlers}["Contacts.everything"]
    assert spec.routes == (("Contact", "afterInsert"), ("Contact", "afterUpdate"), ("Task", "afterDelete"))
    assert (spec.batch_size, spec.limits.wall_time, spec.limits.callouts) == (50, 5, 50)
    assert spec.doc == "Do everything."
    assert spec.file == str(tmp_path / "app.py")
    assert "@trigger" in Path(spec.file).read_text().splitlines()[spec.line - 1]


async def test_an_exception_fails_the_batch_and_names_the_suspect(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("raises", records=[{"id": str(number)} for number in range(5)])
    assert isinstance(outcome, Failed)
    assert outcome.reason == "RuntimeError: no ? luck"
    assert outcome.suspect == 2
    assert "app.py" in outcome.detail


async def test_a_refused_request_and_values_that_cannot_be_sent_are_exceptions(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    refused = await bench.run("refused", broker=broker)
    assert isinstance(refused, Failed)
    assert "there is no request 'nonsense'" in refused.reason
    unsendable = await bench.run("unsendable", broker=broker)
    assert isinstance(unsendable, Failed)
    assert "cannot be sent" in unsendable.reason
    assert len(broker.asked) == 1


async def test_records_that_cannot_be_sent_to_the_child_name_the_culprit(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("who", records=[{"id": "1"}, {"id": "2", "name": "\ud800"}, {"id": 2**70}])
    assert isinstance(outcome, Failed)
    assert outcome.suspect == 1


async def test_threads_of_asyncio_and_forgotten_tasks_are_tidied_up_so_that_the_child_stays(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    one, two = Recorder(), Recorder()
    assert isinstance(await bench.run("who", broker=one), Succeeded)
    assert isinstance(await bench.run("threads"), Succeeded)
    assert isinstance(await bench.run("who", broker=two), Succeeded)
    assert one.messages == two.messages


async def test_effects_of_records_handled_at_once_keep_their_records(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("gathers", records=[{"id": str(n)} for n in range(300)], broker=broker)
    assert outcome == Succeeded(broker.usage)
    assert {asked["record"]: asked["rows"][0]["id"] for _, asked in broker.asked} == {n: str(n) for n in range(300)}


async def test_a_child_has_no_secret_and_no_capability(pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("STRIPE_KEY", "secret")
    bench, broker = await pool_of(APP), Recorder()
    await bench.run("environment", broker=broker)
    assert "DATABASE_URL" not in broker.messages[0]
    assert "STRIPE_KEY" not in broker.messages[0]
    assert "PATH" in broker.messages[0]
    assert "CapEff:\\t0000000000000000" in broker.messages[1]
    assert "NoNewPrivs:\\t1" in broker.messages[1]


async def test_raw_connections_are_counted_in_every_thread_and_limited(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("connects", broker=broker)
    connect = ("connect", {"host": "127.0.0.1", "port": 1, "names": [], "way": None})
    assert broker.asked == [connect] * 3
    assert isinstance(outcome, Breached)
    assert outcome.limit == "callouts"
    assert isinstance(await bench.run("who"), Succeeded)


async def test_batches_beyond_the_size_wait_for_a_place(pool_of: PoolOf) -> None:
    bench = await pool_of(
        """
        @trigger("Contact", ["afterInsert"])
        async def waits(context):
            await CircuitDB.get("Contact", "1")
            await asyncio.sleep(0.05)
        """,
        size=2,
    )
    running = [asyncio.create_task(bench.run("waits", tenant=f"t{n % 3}")) for n in range(6)]
    await until(lambda: sum(child.busy for child in bench.pool.children) == 2)
    assert not bench.pool.idle("t9", False)
    outcomes = await asyncio.gather(*running)
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert bench.pool.idle("t9", False)
    assert bench.changes >= 6


async def test_two_hundred_executions_leak_no_descriptor(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    for tenant in range(40):
        await bench.run("who", tenant=str(tenant))
    await until(lambda: len(bench.pool.children) <= PARKED + 3)
    before = descriptors()
    for tenant in range(200):
        assert isinstance(await bench.run("who", tenant=str(tenant)), Succeeded)
    await until(lambda: descriptors() <= before + 7)


WAITS = """
@trigger("Contact", ["afterInsert"])
async def waits(context):
    log.info("begun")
    await asyncio.sleep(60)
"""


async def test_a_cancelled_run_kills_its_child(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(WAITS), Recorder()
    running = asyncio.create_task(bench.run("waits", broker=broker))
    await until(lambda: broker.messages == ["begun"])
    pid = next(child.pid for child in bench.pool.children if child.busy)
    running.cancel()
    await until(lambda: not alive(pid))
    assert bench.pool.idle("acme", False)


async def test_stopping_ends_what_runs_as_failed(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(WAITS, size=1), Recorder()
    running = asyncio.create_task(bench.run("waits", broker=broker))
    await until(lambda: broker.messages == ["begun"])
    waiting = asyncio.create_task(bench.run("waits"))
    await bench.pool.stop()
    for outcome in (await running, await waiting):
        assert isinstance(outcome, Failed)
        assert outcome.reason == "the worker stops"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_like_this", "app.py:1: ModuleNotFoundError"),
        ("x = 1\ndef f(:", "app.py:2: SyntaxError"),
        ("\n\n1 / 0", "app.py:3: ZeroDivisionError"),
        ("import sys\nsys.exit(3)", "app.py:2: SystemExit"),
        ("import os\nos._exit(3)", "ended its process with code 3"),
        ("from circuit_script import trigger\n@trigger('Contact', ['afterinsert'])\ndef f(c): ...", "afterInsert"),
    ],
)
async def test_an_app_that_does_not_import_is_refused_with_file_and_line(
    source: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(source)
    pool = Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None)
    with pytest.raises(AppError) as refused:
        await pool.start()
    assert said in str(refused.value)
    assert refused.value.cure
    await pool.stop()


async def test_an_app_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pool = Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None)
    with pytest.raises(AppError, match=r"no app\.py"):
        await pool.start()
    await pool.stop()


async def test_submodules_of_a_package_are_imported_and_threads_and_sockets_reported(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text(
        "import socket, threading, time\nkept = socket.socket()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True, name='ticker').start()"
    )
    (tmp_path / "shop" / "orders.py").write_text(
        "from circuit_script import trigger\n@trigger('Order', ['afterInsert'])\ndef ship(context): pass\n"
    )
    pool = Pool(app_folder=tmp_path, app="shop", size=1, on_change=lambda: None)
    manifest = await pool.start()
    await pool.stop()
    assert [spec.name for spec in manifest.handlers] == ["ship"]
    assert any("'ticker'" in warning for warning in manifest.warnings)
    assert any("socket" in warning for warning in manifest.warnings)
