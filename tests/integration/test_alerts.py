"""What is wrong is told once, to whom it concerns, and so is its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from circuit_script.cli.doctor.check import State
from circuit_script.cli.doctor.see import telling
from circuit_script.clock import uuid7
from circuit_script.config import Settings
from circuit_script.db.pool import tenant_reading
from circuit_script.settings_see import AlertSettings
from circuit_script.tasks import end
from circuit_script.telemetry import acknowledge, alerts_of, silence
from circuit_script.telemetry.alerts.notices import Message
from circuit_script.telemetry.alerts.tell import CannotTell, tell
from tests.alerts_stage import NOON, Stage, channel, heard, mailbox, said, staged
from tests.receiver import Got, receiving, response

DISCARD = "UPDATE circuit.dead_letters SET status = 'discarded', by = 'ann', closed_at = now()"


@pytest.fixture
async def stage(database: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(database, tmp_path) as stage:
        yield stage


async def test_what_appears_together_is_one_message_and_its_end_another_also_after_a_restart(stage: Stage) -> None:
    async with heard() as ops, heard() as acme, heard() as globex:
        channels = {
            "ops": channel(ops),
            "acme": channel(acme, tenants=["acme"]),
            "globex": channel(globex, tenants=["globex"]),
        }
        monitor = stage.monitor(channels=channels, group=10, url="https://circuit.example.com/")
        await stage.executed("score", "acme", 12)
        await stage.executed("score", "acme", 8, "failed")
        await stage.executed("score", "globex", 20)
        await stage.look(monitor)
        await stage.died("route", "acme", 3, reason="<!channel> \u202e\x1b[31mgone @everyone")
        await stage.look(monitor, after=5)
        assert ops.got == []
        await stage.look(monitor, after=5)
        (message,) = said(ops)
        assert "score: 8 of 40 executions failed in the last 5 minutes (20%)" in message["message"]
        assert "route: 3 dead letters wait" in message["message"]
        assert "hits acme (8 of 20)" in message["message"]
        assert "since 2026-05-04 12:00 UTC" in message["message"]
        assert "next: circuit-script dead list --trigger route" in message["message"]
        assert "https://circuit.example.com/executions?handler=score&status=trouble&tenant=acme" in message["message"]
        assert not {"\x1b", "\u202e", "@everyone", "<!"} & {*message["message"], *message["message"].split()}
        (own,) = said(acme)
        assert "score: 8 of 20 executions failed in the last 5 minutes (40%)" in own["message"]
        assert "globex" not in own["message"]
        assert "of 40" not in own["message"]
        assert globex.got == []

        again = stage.monitor(channels=channels, group=10)  # another process, which knows only the database
        await monitor._leave()
        await stage.looks(again, seconds=60)
        assert len(ops.got) == len(acme.got) == 1
        await stage.run(DISCARD)
        await stage.looks(again, seconds=460)
        assert "OVER  score: " in (over := said(ops)[-1]["message"])
        assert "from 2026-05-04 12:00 to 12:" in over
        assert [each["title"].split(":")[0] for each in said(acme)[1:]] == ["OVER", "OVER"]
        assert globex.got == []
        assert await stage.run("SELECT count(*) FROM circuit.alerts WHERE NOT settled OR resolved IS NULL") == [(0,)]


async def test_an_alert_climbs_until_somebody_looks_after_it(stage: Stage) -> None:
    async with heard() as first, heard() as second, heard() as third:
        channels = {
            "first": channel(first),
            "second": channel(second, after="5m"),
            "third": channel(third, after="15m"),
        }
        monitor = stage.monitor(channels=channels, repeat="1h")
        await stage.died("score", "acme", reason="a" * 1_000_000)
        await stage.look(monitor)
        assert [len(each.got) for each in (first, second, third)] == [1, 0, 0]
        assert len(first.got[0].body) < 4000
        await stage.looks(monitor, seconds=320)
        assert [len(each.got) for each in (first, second, third)] == [1, 1, 0]
        async with stage.pool.connection() as connection:
            assert not await acknowledge(connection, "dead:route", "ann")
            assert not await acknowledge(connection, "dead:score", "eve", tenant="globex")
            assert await acknowledge(connection, "dead:score", "ann")
            assert await acknowledge(connection, "dead:score", "bob")
            (alert,) = await alerts_of(connection, None, open_only=True)
        assert (alert.acknowledged_by, set(alert.told)) == ("ann", {"first", "second"})
        await stage.looks(monitor, seconds=3 * 3600, every=600)
        assert [len(each.got) for each in (first, second, third)] == [1, 1, 0]

        await stage.run(DISCARD)
        await stage.looks(monitor, seconds=100)
        assert [len(each.got) for each in (first, second, third)] == [2, 2, 0]

        await stage.died("score", "acme")  # the same again, which nobody has acknowledged
        await stage.look(monitor, after=10)
        await stage.died("score", "acme", 10)  # and much more of it
        await stage.look(monitor, after=10)
        await stage.looks(monitor, seconds=3600, every=600)
        assert [each["title"].split(" ")[0] for each in said(first)[2:]] == ["WARNING:", "MORE", "STILL"]
        async with stage.pool.connection() as connection:
            assert await silence(connection, "dead:score", stage.now + timedelta(days=1), "ann")
        await stage.looks(monitor, seconds=7200, every=600)
        assert len(first.got) == 5


async def test_at_night_only_what_is_critical_is_told_and_the_rest_in_the_morning(stage: Stage) -> None:
    async with heard() as sleeper, heard() as watch:
        quiet = {"start": "22:00", "end": "07:00", "timezone": "Europe/Berlin"}
        channels = {"sleeper": channel(sleeper), "watch": channel(watch, quiet=False)}
        monitor = stage.monitor(channels=channels, quiet=quiet, repeat="1d")
        stage.now = NOON.replace(hour=20)  # 22:00 in Berlin
        await stage.died("score", "acme")
        await stage.died("route", "acme")
        await stage.look(monitor)
        assert (len(sleeper.got), len(watch.got)) == (0, 1)
        await stage.run(DISCARD + " WHERE id = 1")
        await stage.looks(monitor, seconds=120)
        await stage.executed("score", "acme", 20, "failed")
        await stage.look(monitor, after=10)
        (critical,) = said(sleeper)
        assert critical["type"] == "failure"
        assert "20 of 20 executions failed" in critical["message"]
        assert "dead" not in critical["message"]

        another = stage.monitor(channels=channels, quiet=quiet, repeat="1d")
        await monitor._leave()
        await stage.looks(another, seconds=8 * 3600, every=1200)
        assert len(sleeper.got) == 2  # and that this is over
        stage.now = NOON.replace(day=5, hour=5)  # 07:00 there
        await stage.look(another)
        morning = said(sleeper)[-1]["message"]
        assert len(sleeper.got) == 3
        assert "WARNING  route: 1 dead letter" in morning
        assert "OVER  score: 1 dead letter" in morning
        assert "from 2026-05-04 22:00 to 22:0" in morning


async def test_a_channel_that_cannot_be_told_holds_up_no_other_and_is_told_once_it_can(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit_script.telemetry.alerts.monitor.BACKOFF", 0.0)
    down = True

    def flaky(_: Got) -> bytes | None:
        return response(500) if down else response(200)

    async with receiving(flaky) as receiver:
        async with mailbox() as (box, address):
            channels = {
                "chat": channel(receiver),
                "mail": {"url": address},
                "none": {"url_env": "CIRCUIT_NO_SUCH_VARIABLE"},
                "wrong": {"url": "nosuchservice://secret@example.com"},
            }
            monitor = stage.monitor(channels=channels)
            await stage.died("score", "acme", reason="<b>bold</b> & ünïcode")
            await stage.look(monitor)
            ((subject, text),) = box.mails
            assert subject == "WARNING: score: 1 dead letter waits for somebody; ‹b›bold‹/b› & ünïcode"
            assert "circuit-script dead list" in text
            await stage.looks(monitor, seconds=10, every=5)
            await stage.look(monitor, after=5)
            assert len(box.mails) == 2
            assert "chat cannot be told" in box.mails[1][1]
            assert "CIRCUIT_NO_SUCH_VARIABLE is not set" in box.mails[1][1]
            assert "secret" not in box.mails[1][1]
            rows = await stage.run("SELECT channel, failures > 2, failure FROM circuit.alert_channels ORDER BY 1")
            assert [(name, failed) for name, failed, _ in rows] == [
                ("chat", True), ("mail", False), ("none", True), ("wrong", True),
            ]  # fmt: skip
            assert not any("secret" in (failure or "") for _, _, failure in rows)

            async with stage.pool.connection() as connection:
                alerts = AlertSettings.model_validate({"channels": channels})
                settings = Settings(folder=stage.folder, alerts=alerts)
                checks = [each async for each in telling(connection, settings)]
            assert [(each.state, each.cure) for each in checks] == [
                *((State.warning, f"circuit-script alerts test {name}") for name in ("chat", "none", "wrong")),
                (State.warning, "circuit-script alerts shows what to do next."),
            ]
            assert "4 open, the worst of them: " in checks[-1].said

            down, before = False, len(receiver.got)
            await stage.look(monitor, after=5)
            await stage.looks(monitor, seconds=120)
            told = said(receiver)[before:]
            assert "dead letter" in told[0]["message"]
            assert "chat cannot be told" not in "".join(each["message"] for each in told)
            assert any("OVER" in mail and "chat cannot" in mail for _, mail in box.mails)


async def test_of_several_workers_one_looks_and_another_one_when_it_is_gone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with heard() as ops:
        workers = [stage.monitor(channels={"ops": channel(ops)}) for _ in range(3)]
        await stage.died("score", "acme")
        await stage.look(*workers)
        await stage.look(*workers, after=5)
        assert [each.looks for each in workers] == [True, False, False]
        assert len(ops.got) == 1
        await stage.run("UPDATE circuit.monitor SET until = clock_timestamp() - interval '1 second'")  # it was killed
        await stage.look(*workers[1:])
        assert [each.looks for each in workers[1:]] == [True, False]
        await workers[0].once()  # and it was only slow
        assert not workers[0].looks
        await workers[1]._leave()
        await stage.look(workers[2])
        assert workers[2].looks
        assert len(ops.got) == 1


async def test_two_workers_tell_though_their_looks_outlast_the_lease(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit_script.telemetry.alerts.state.LEASE", 1.5)
    monkeypatch.setattr("circuit_script.telemetry.alerts.state._BRIEFLY", "SET LOCAL statement_timeout = '900ms'")
    monkeypatch.setattr("circuit_script.wiring.monitor.UNREAD", 0.0)
    async with heard() as ops:
        first, second = (stage.monitor(channels={"ops": channel(ops)}) for _ in range(2))
        await stage.executed("score", "acme", 9, "failed")
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("LOCK circuit.effects")  # three readers wait for it until their time is up
            looking = asyncio.create_task(first.once())
            while not looking.done():
                await asyncio.sleep(0.05)
                if not looking.done():
                    await second.once()
            assert (first.looks, second.looks) == (True, False)
            await first.settled()
            (message,) = said(ops)
        assert "9 of 9 executions failed" in message["message"]
        assert "alerts are blind in part: vendors cannot be read: QueryCanceled" in message["message"]


async def test_a_rule_or_a_reader_that_fails_blinds_no_other_and_is_said(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such tier")

    monkeypatch.setattr("circuit_script.wiring.monitor.UNREAD", 0.0)
    monkeypatch.setattr("circuit_script.wiring.monitor.held", broken)
    monkeypatch.setattr("circuit_script.telemetry.alerts.rules._errors", broken)
    async with heard() as ops:
        monitor = stage.monitor(channels={"ops": channel(ops)})
        await stage.died("score", "acme")
        await stage.look(monitor)
        (message,) = said(ops)
        assert "score: 1 dead letter waits" in message["message"]
        assert "budgets cannot be read: ValueError: no such tier" in message["message"]
        assert "rule errors cannot be read: ValueError" in message["message"]
        await stage.looks(monitor, seconds=120)
        assert len(ops.got) == 1
        monkeypatch.undo()
        await stage.looks(monitor, seconds=80)
        assert "OVER  alerts are blind in part: budgets" in said(ops)[-1]["message"]


async def test_the_alerts_own_tables_may_be_locked_and_that_is_said_by_its_name(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuit_script.telemetry.alerts.state._BRIEFLY", "SET LOCAL statement_timeout = '100ms'")
    monkeypatch.setattr("circuit_script.telemetry.alerts.monitor.BLIND", 0.0)
    async with heard() as ops:
        monitor, other = (stage.monitor(channels={"ops": channel(ops)}) for _ in range(2))
        await stage.look(monitor)
        async with await psycopg.AsyncConnection.connect(database) as locking:
            await locking.execute("LOCK circuit.alerts")
            await stage.looks(monitor, seconds=60)
            assert [each["title"] for each in said(ops)] == [
                "CRITICAL: The alerts' own tables do not answer (are they locked?): nobody is told of anything"
            ]
        await stage.run("UPDATE circuit.monitor SET until = '-infinity'")
        await stage.look(other)  # another one looks now, and knows nothing of it
        await stage.look(monitor, other)
        await stage.looks(monitor, other, seconds=100)
        assert other.looks
        assert [each["title"].split(":")[0] for each in said(ops)] == ["CRITICAL", "OVER"]


async def test_what_wavers_between_two_severities_wakes_nobody_twice(stage: Stage) -> None:
    async with heard() as duty:
        monitor = stage.monitor(channels={"duty": channel(duty, at_least="critical")})
        await stage.executed("score", "acme", 10, "failed")
        await stage.executed("score", "acme", 8)
        await stage.look(monitor)
        for _ in range(4):  # of the half that is critical
            await stage.executed("score", "acme", 4)
            await stage.look(monitor, after=10)
            await stage.executed("score", "acme", 4, "failed")
            await stage.look(monitor, after=10)
        assert [each["title"].split(":")[0] for each in said(duty)] == ["CRITICAL"]
        await stage.executed("score", "acme", 40)
        await stage.looks(monitor, seconds=100)
        assert [each["title"].split(":")[0] for each in said(duty)] == ["CRITICAL", "EASED TO WARNING"]


async def test_a_clock_that_is_set_back_keeps_no_alert_back(stage: Stage) -> None:
    async with heard() as ops:
        monitor = stage.monitor(channels={"ops": channel(ops)}, group=10)
        stage.now += timedelta(hours=5)
        await stage.died("score", "acme")
        await stage.look(monitor)
        stage.now -= timedelta(hours=5)
        await stage.looks(monitor, seconds=30, every=10)
        assert "score: 1 dead letter" in said(ops)[0]["title"]
        await stage.run(DISCARD)
        await stage.looks(monitor, seconds=120)
        assert [each["title"].split(":")[0] for each in said(ops)] == ["WARNING", "OVER"]


async def test_a_worker_that_ends_while_it_tells_leaves_nothing_to_be_told_again(stage: Stage) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def slow(_: str, message: Message) -> None:
        told.append(message.title)
        asked.set()
        await answer.wait()

    channels = {"ops": {"url": "json://127.0.0.1:9"}}
    first, second = stage.monitor(channels=channels), stage.monitor(channels=channels)
    for each in (first, second):
        each._parts = replace(each._parts, tell=slow)
    await stage.died("score", "acme")
    running = asyncio.create_task(first.run())
    await asked.wait()
    asyncio.get_running_loop().call_later(0.1, answer.set)
    await end([running])
    await stage.looks(second, seconds=60)
    assert (second.looks, len(told)) == (True, 1)


async def test_a_tenant_sees_its_own_alerts_and_nothing_of_others(stage: Stage) -> None:
    async with heard() as ops:
        monitor = stage.monitor(channels={"ops": channel(ops)})
        await stage.died("score", "acme", 2, reason="x\u202ey")
        await stage.died("score", "globex", 5)
        await stage.executed("only_acme", "acme", 9, "failed")
        await stage.look(monitor)
        async with stage.pool.connection() as connection:
            everything = await alerts_of(connection, None, open_only=True)
            async with tenant_reading(connection, "acme"):
                own = await alerts_of(connection, "acme")
                others = await alerts_of(connection, "globex")
                rows = await (await connection.execute("SELECT tenant FROM circuit.alerts")).fetchall()
            assert [each.key for each in everything] == ["dead:score", "errors:only_acme"]
            assert {hit.tenant for hit in everything[0].hits} == {"acme", "globex"}
            assert {each.key for each in own} == {"dead:score@acme", "errors:only_acme@acme"}
            assert others == []
            assert {tenant for (tenant,) in rows} == {"acme"}
            assert all("globex" not in str(each) and each.told == {} for each in own)
            assert await acknowledge(connection, "dead:score@acme", "ann", tenant="acme")
            assert not await acknowledge(connection, "dead:score@globex", "ann", tenant="acme")
            assert not await silence(connection, "dead:score", stage.now, "ann", tenant=str(uuid7()))


async def test_a_channel_that_was_dead_for_days_is_still_left_in_peace_between_two_tries(stage: Stage) -> None:
    monitor = stage.monitor(channels={"none": {"url_env": "CIRCUIT_NO_SUCH_VARIABLE"}})
    await stage.died("score", "acme")
    monitor._lines[0].failures = 5000
    await stage.looks(monitor, seconds=60)
    assert await stage.run("SELECT failures, failure FROM circuit.alert_channels") == [
        (1, "CIRCUIT_NO_SUCH_VARIABLE is not set")
    ]


async def test_a_receiver_that_answers_a_byte_at_a_time_holds_few_threads() -> None:
    enough = asyncio.Event()

    async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not enough.is_set():
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    server = await asyncio.start_server(drips, "127.0.0.1", 0)
    async with server:
        url = f"json://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(3):
            with pytest.raises(CannotTell, match="did not answer"):
                await tell(url, Message("title", "body", None), patience=1.5)  # a byte has a third of it
        with pytest.raises(CannotTell, match="has not yet taken"):
            await tell(url, Message("title", "body", None), patience=1.5)
        enough.set()
        async with asyncio.timeout(10):
            while "alerts" in {each.name for each in threading.enumerate()}:
                await asyncio.sleep(0.02)


async def test_a_receiver_that_never_answers_is_waited_for_no_longer_than_said() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    async with server:
        url = f"json://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(CannotTell, match=r"did not answer|Connection error"):
            await tell(url, Message("title", "body", None), patience=0.6)
        with pytest.raises(CannotTell, match="no such address") as refused:
            await tell("no such:secret@", Message("title", "body", None))
        assert "secret" not in str(refused.value)
