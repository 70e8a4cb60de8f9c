import asyncio
import json
import random
import socket
import struct
import time
from contextlib import asynccontextmanager
from functools import partial

import psycopg
import pytest

from circuit_script.db.pool import open_connection
from circuit_script.errors import DatabaseUnavailable, IntakeRefused
from circuit_script.events import intake as intake_module
from circuit_script.events import ledger as ledger_module
from circuit_script.events.bell import CHANNEL, Bell
from circuit_script.events.intake import MAX_GROUP_BYTES, Accepted, Intake, order_hash
from circuit_script.events.ledger import Ledger, LedgerAway
from circuit_script.events.sources import Parsed, Request
from circuit_script.events.sources.gohighlevel import GoHighLevel
from circuit_script.events.sources.standard import Standard
from circuit_script.tenants import TenantMap


class Unsigned(GoHighLevel):
    """The vendor's shape without its signature."""

    def __init__(self):
        pass

    def verify(self, request):
        return ""


class UnsignedStandard(Unsigned, Standard):
    name = "standard"
    overload_status = 503


SOURCE = Unsigned()


class CountingLedger(Ledger):
    """Remembers the size of each group."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.groups = []

    async def take_in(self, rows):
        self.groups.append(len(rows))
        return await super().take_in(rows)


@pytest.fixture
def intake_on(pooler):
    @asynccontextmanager
    async def make(url, *, tenants=None, bell=False, ledger=None, **options):
        connect = partial(open_connection, url, pooler=pooler)
        intake = Intake(
            sources={SOURCE.name: SOURCE},
            tenants=TenantMap(tenants or {}),
            ledger=ledger or CountingLedger(connect, pooler=pooler),
            bell=Bell(connect) if bell else None,
            **options,
        )
        async with intake:
            yield intake

    return make


def contact(record="C1", *, id_=None, **fields):
    body = {"type": "ContactCreate", "locationId": "L1", "id": record, **fields}
    return json.dumps(body | ({"webhookId": id_} if id_ else {})).encode()


def take(intake, body, source=SOURCE):
    return intake.accept(source, Request("POST", "/webhooks/x", b"", {"user-agent": "vendor"}, body, 0.0))


async def rows(url, query, *parameters):
    async with await psycopg.AsyncConnection.connect(url, prepare_threshold=None) as connection:
        return await (await connection.execute(query, parameters)).fetchall()


async def route(url, *routes):
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("INSERT INTO circuit.handlers (name) VALUES ('T.h')")
        for each in routes:
            await connection.execute("INSERT INTO circuit.routes SELECT %s, %s, id FROM circuit.handlers", each)


@pytest.mark.every_server
async def test_a_delivery_stands_in_the_ledger_byte_for_byte_once_it_is_answered(database, intake_on):
    body = contact(id_="W1", note="Zoë \u0000 \U0001f600") + b" \n"
    async with intake_on(database) as intake:
        accepted = await take(intake, body)
        ((id_, account, tenant, vendor_id, headers, stored),) = await rows(
            database, "SELECT id, account, tenant, vendor_id, headers, body FROM circuit.deliveries"
        )
    assert accepted == Accepted(id_)
    assert (account, tenant, vendor_id) == ("L1", "default", "W1")
    assert headers == {"user-agent": "vendor"}
    assert stored == body
    ((delivery, object_, event, record, handled),) = await rows(
        database, "SELECT delivery, object, event, record, handled FROM circuit.events"
    )
    assert (delivery, object_, event, record, handled) == (id_, "Contact", "afterInsert", "C1", 0)


async def test_an_event_is_queued_for_each_handler_of_its_route(database, intake_on):
    await route(database, ("Contact", "afterInsert"))
    async with intake_on(database) as intake:
        accepted = await take(intake, contact(id_="W1"))
        await take(intake, contact(id_="W2").replace(b"ContactCreate", b"ContactDelete"))
    ((delivery, tenant, record, lane, hash_),) = await rows(
        database, "SELECT delivery, tenant, record, lane, order_hash FROM circuit.queue"
    )
    assert (delivery, tenant, record) == (accepted.id, "default", "C1")
    assert (hash_, lane) == (order_hash("default", "C1"), order_hash("default", "C1") % 64)
    assert 0 <= lane < 64


@pytest.mark.every_server
async def test_the_vendors_id_makes_a_duplicate_in_a_later_group(database, intake_on):
    async with intake_on(database) as intake:
        first = await take(intake, contact(id_="W1"))
        again = await take(intake, contact(id_="W1", resent=True))
    assert again.duplicate_of == first.id
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == 1
    assert len(await rows(database, "SELECT FROM circuit.events")) == 1


async def test_duplicates_in_one_group_share_the_first_ones_fate(database, intake_on):
    async with intake_on(database) as intake:
        answers = await asyncio.gather(*[take(intake, contact(id_="W1")) for _ in range(5)])
        later = await asyncio.gather(*[take(intake, contact(id_="W1")) for _ in range(3)])
    assert answers[0].duplicate_of is None
    assert {each.duplicate_of for each in (*answers[1:], *later)} == {answers[0].id}
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == 1


async def test_without_a_vendors_id_the_same_body_within_a_minute_is_a_duplicate(database, intake_on):
    async with intake_on(database) as intake:
        first, again = await asyncio.gather(take(intake, contact()), take(intake, contact()))
        other = await take(intake, contact(name="Ada"))
        back = await take(intake, contact())
    assert again.duplicate_of == first.id
    assert other.duplicate_of is None
    assert back.duplicate_of is None, "only the record's latest body counts"
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == 3


async def test_without_a_vendors_id_the_same_body_after_a_minute_is_new(database, intake_on):
    async with intake_on(database) as intake:
        await take(intake, contact())
        await rows(database, "UPDATE circuit.latest SET at = at - interval '61 seconds' RETURNING 1")
        again = await take(intake, contact())
    assert again.duplicate_of is None


async def test_the_same_id_of_another_account_or_source_is_no_duplicate(database, intake_on):
    async with intake_on(database) as intake:
        answers = [
            await take(intake, contact(id_="W1")),
            await take(intake, contact(id_="W1", locationId="L2")),
            await take(intake, contact(id_="W1"), UnsignedStandard()),
        ]
    assert [each.duplicate_of for each in answers] == [None, None, None]


async def test_an_unknown_type_is_kept_as_unrouted(database, intake_on):
    async with intake_on(database) as intake:
        await take(intake, b'{"type": "MoonPhase", "locationId": "L1", "webhookId": "W1"}')
    assert await rows(database, "SELECT object, event, handled FROM circuit.events") == [("MoonPhase", "unknown", 0)]


async def test_an_account_that_nobody_has_is_kept_unassigned_and_not_queued(database, intake_on):
    await route(database, ("Contact", "afterInsert"))
    async with intake_on(database, tenants={"acme": {"gohighlevel": ("L1",)}}) as intake:
        mine = await take(intake, contact(id_="W1"))
        await take(intake, contact(id_="W2", locationId="L2"))
    found = await rows(database, "SELECT account, tenant FROM circuit.deliveries ORDER BY account")
    assert found == [("L1", "acme"), ("L2", None)]
    assert await rows(database, "SELECT delivery, tenant FROM circuit.queue") == [(mine.id, "acme")]


async def test_who_comes_alone_commits_at_once_and_who_comes_meanwhile_shares_a_commit(database, intake_on):
    async with intake_on(database) as intake:
        first = asyncio.create_task(take(intake, contact(id_="W0")))
        await asyncio.sleep(0)  # its request has arrived
        await asyncio.sleep(0)  # and its commit is in flight
        await asyncio.gather(first, *[take(intake, contact(id_=f"W{n}")) for n in range(1, 41)])
    assert intake._ledger.groups == [1, 40]


async def test_a_group_has_at_most_500_deliveries_and_8_megabytes(database, intake_on):
    large = "x" * (MAX_GROUP_BYTES // 3)
    async with intake_on(database) as intake:
        await asyncio.gather(*[take(intake, contact(id_=f"W{n}")) for n in range(501)])
        await asyncio.gather(*[take(intake, contact(id_=f"L{n}", note=large)) for n in range(3)])
    assert intake._ledger.groups == [500, 1, 2, 1]


async def test_two_gateways_at_once_keep_one_order_and_take_each_delivery_once(database, intake_on):
    await route(database, ("Contact", "afterInsert"))
    random_ = random.Random(7)
    ids = [f"W{n}" for n in range(400)]

    async def send(intake, mine):
        for start in range(0, len(mine), 50):
            group = mine[start : start + 50]
            await asyncio.gather(*[take(intake, contact(f"C{int(i[1:]) % 20}", id_=i)) for i in group])

    async with intake_on(database) as one, intake_on(database) as two:
        orders = [random_.sample(ids, len(ids)) for _ in range(2)]
        seen: list[int] = []
        watching = asyncio.create_task(watch_queue(database, seen, len(ids)))
        async with asyncio.timeout(30):
            await asyncio.gather(send(one, orders[0]), send(two, orders[1]))
            await watching
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == len(ids)
    assert sorted(seen) == seen, "a reader with a cursor never finds a smaller id later"
    assert len(seen) == len(ids)
    per_lane = await rows(database, "SELECT array_agg(id ORDER BY id) FROM circuit.queue GROUP BY lane")
    assert sum(len(lane) for (lane,) in per_lane) == len(ids)


async def watch_queue(url, seen, wanted):
    """Reads as a dispatcher does: only what is beyond the greatest id so far."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while len(seen) < wanted:
            last = seen[-1] if seen else 0
            cursor = await connection.execute("SELECT id FROM circuit.queue WHERE id > %s ORDER BY id", (last,))
            seen += [id_ for (id_,) in await cursor.fetchall()]
            await asyncio.sleep(0)


async def test_one_gateways_ids_rise_in_the_order_of_its_commits(database, intake_on):
    async with intake_on(database) as intake:
        await asyncio.gather(*[take(intake, contact(f"C{n % 3}")) for n in range(9)])
        await asyncio.gather(*[take(intake, contact(f"C{n}", id_=f"W{n}")) for n in range(30)])
    found = await rows(database, "SELECT delivery FROM circuit.events ORDER BY id")
    assert found == sorted(found)


async def test_a_sleeping_dispatcher_is_woken(database, intake_on):
    await route(database, ("Contact", "afterInsert"))
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as listener:
        await listener.execute(f"LISTEN {CHANNEL}")
        async with intake_on(database, bell=True) as intake:
            await take(intake, contact(id_="W1"))
            assert [each async for each in listener.notifies(timeout=0.2)] == []
            await listener.execute(
                "INSERT INTO circuit.workers (id, host, pid, expires_at, asleep)"
                " VALUES (gen_random_uuid(), 'here', 1, now() + interval '1 minute', true)"
            )
            await take(intake, contact(id_="W2"))
            rung = [each async for each in listener.notifies(timeout=10, stop_after=1)]
    assert [each.channel for each in rung] == [CHANNEL]


async def test_too_many_waiting_is_answered_with_the_vendors_own_overload_status(database, intake_on):
    async with intake_on(database, max_waiting=3) as intake:
        answers = await asyncio.gather(*[take(intake, contact(id_=f"W{n}")) for n in range(5)], return_exceptions=True)
        taken = [each for each in answers if isinstance(each, Accepted)]
        refused = [(each.status, each.reason) for each in answers if isinstance(each, IntakeRefused)]
        await take(intake, contact(id_="W9"))
    assert len(taken) == 3
    assert refused == [(429, "overloaded")] * 2
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == 4


class Restartable:
    """A way to the database that can be shut: as a server that is away, and one that hangs."""

    def __init__(self, url):
        self.url = url
        self.open = True
        self.connections = []

    async def connect(self):
        if not self.open:
            raise DatabaseUnavailable("connection refused")
        connection = await open_connection(self.url, pooler=False)
        self.connections.append(connection)
        return connection

    async def restart(self):
        """What a restart does to connections: the server ends each of them."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )


async def test_while_the_database_is_away_everybody_is_sent_away_and_then_taken_again(database, intake_on):
    way = Restartable(database)
    async with intake_on(database, ledger=CountingLedger(way.connect)) as intake:
        first = await take(intake, contact(id_="W0"))
        way.open = False
        await way.restart()
        async with asyncio.timeout(5):
            await until_idle(intake)
            answers = await asyncio.gather(
                *[take(intake, contact(id_=f"W{n}"), UnsignedStandard() if n % 2 else SOURCE) for n in range(8)],
                return_exceptions=True,
            )
        assert {(each.status, each.reason) for each in answers} == {
            (429, "database-away"),
            (503, "database-away"),
        }
        way.open = True
        async with asyncio.timeout(10):
            again = await until_accepted(intake, contact(id_="W0"))
    assert again.duplicate_of == first.id
    counted = await rows(database, "SELECT source, n FROM circuit.refusals WHERE reason = 'database-away'")
    assert dict(counted)["standard"] == 4


async def test_a_restart_between_two_deliveries_costs_no_answer(database, intake_on):
    way = Restartable(database)
    async with intake_on(database, ledger=CountingLedger(way.connect)) as intake:
        await take(intake, contact(id_="W0"))
        await way.restart()
        await until_idle(intake)
        assert (await take(intake, contact(id_="W1"))).duplicate_of is None
    assert len(way.connections) == 2


async def until_idle(intake):
    """Until the ledger's connection counts as unused for a while, and is looked at before its next use."""
    await asyncio.sleep(intake._ledger._used_at + ledger_module._IDLE - time.monotonic() + 0.01)


async def until_accepted(intake, body):
    while True:
        try:
            return await take(intake, body)
        except IntakeRefused as refused:
            if refused.reason != "database-away":
                raise
            await asyncio.sleep(0.01)


async def test_a_database_that_does_not_answer_is_given_up(database, intake_on, monkeypatch):
    monkeypatch.setattr(ledger_module, "GIVE_UP_AFTER", 0.3)
    way = Restartable(database)
    async with await psycopg.AsyncConnection.connect(database) as other:
        async with intake_on(database, ledger=CountingLedger(way.connect)) as intake:
            await take(intake, contact(id_="W0"))
            await other.execute("LOCK TABLE circuit.deliveries")
            async with asyncio.timeout(5):
                with pytest.raises(IntakeRefused) as caught:
                    await take(intake, contact(id_="W1"))
            assert (caught.value.status, caught.value.reason) == (429, "database-away")
            await other.rollback()
            async with asyncio.timeout(10):
                await until_accepted(intake, contact(id_="W2"))


async def test_one_delivery_that_cannot_be_stored_does_not_keep_the_others_out(database, intake_on):
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("ALTER TABLE circuit.deliveries ADD CHECK (NOT starts_with(vendor_id, 'poison'))")
    async with intake_on(database) as intake:
        ids = [f"W{n}" for n in range(20)]
        ids[7], ids[13] = "poison 1", "poison 2"
        answers = await asyncio.gather(*[take(intake, contact(id_=i)) for i in ids], return_exceptions=True)
        await intake.refusals.flush()
    refused = {i: (each.status, each.reason) for i, each in enumerate(answers) if not isinstance(each, Accepted)}
    assert refused == {7: (400, "unstorable"), 13: (400, "unstorable")}
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == 18
    assert await rows(database, "SELECT reason, n FROM circuit.refusals") == [("unstorable", 2)]


async def test_one_delivery_of_which_no_row_can_be_made_does_not_keep_the_others_out(database, intake_on, monkeypatch):
    def row(waiting):
        if waiting.parsed.vendor_id == "W3":
            "\ud800".encode()
        return make(waiting)

    make = intake_module._row
    monkeypatch.setattr(intake_module, "_row", row)
    async with intake_on(database) as intake:
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                *[take(intake, contact(id_=f"W{n}")) for n in range(10)], return_exceptions=True
            )
    refused = [each for each in answers if isinstance(each, IntakeRefused)]
    assert [(each.status, each.reason) for each in refused] == [(400, "unstorable")]
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == 9


@pytest.mark.parametrize("place", ["_row", "order_hash", "_next_group", "_answer"])
async def test_an_error_of_ours_sends_everybody_away_and_the_next_is_taken(database, intake_on, monkeypatch, place):
    failing = [True]

    def broken(*arguments):
        if failing:
            raise RuntimeError("nobody expected this")
        return whole(*arguments)

    owner = Intake if hasattr(Intake, place) else intake_module
    whole = getattr(owner, place)
    monkeypatch.setattr(owner, place, broken)
    async with intake_on(database) as intake:
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                *[take(intake, contact(id_=f"W{n}")) for n in range(10)], return_exceptions=True
            )
        assert [each.status for each in answers] == [429] * 10
        failing.clear()
        await until_accepted(intake, contact(id_="W10"))


async def test_a_delivery_that_cannot_be_grouped_takes_nobody_with_it_for_good(database, intake_on):
    class Eventless(Unsigned):
        def parse(self, request, signer=""):
            return Parsed("L1", None, ())

    async with intake_on(database) as intake:
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                take(intake, contact(id_="W1")),
                take(intake, contact(id_="W1")),
                take(intake, contact(), Eventless()),
                take(intake, contact(id_="W2")),
                return_exceptions=True,
            )
        assert [each.status for each in answers] == [429] * 4
        await until_accepted(intake, contact(id_="W3"))


async def test_an_intake_whose_task_was_cancelled_leaves_nobody_waiting(database, intake_on):
    async def cancelled():
        async with intake_on(database) as intake:
            waiting.append(asyncio.create_task(take(intake, contact(id_="W1"))))
            await asyncio.sleep(0)
            intake._tasks[0].cancel()

    waiting = []
    with pytest.raises(asyncio.CancelledError):
        await cancelled()
    with pytest.raises(IntakeRefused, match="send again"):
        await asyncio.wait_for(waiting[0], 5)


async def test_a_ledger_that_refuses_everything_is_away_not_poisoned(database, intake_on):
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("ALTER TABLE circuit.seen RENAME TO elsewhere")
    async with intake_on(database) as intake:
        with pytest.raises(IntakeRefused) as caught:
            await take(intake, contact(id_="W1"))
    assert (caught.value.status, caught.value.reason) == (429, "database-away")


@pytest.mark.every_server
async def test_refusals_leave_a_count_and_nothing_else(database, intake_on):
    async with intake_on(database) as intake:
        for body in (b"not json", b"neither", b"[]"):
            with pytest.raises(IntakeRefused):
                await take(intake, body)
        await intake.refusals.flush()
        with pytest.raises(IntakeRefused):
            await take(intake, b"still not json")
    counted = await rows(database, "SELECT source, reason, n FROM circuit.refusals ORDER BY reason")
    assert counted == [("gohighlevel", "not-an-object", 1), ("gohighlevel", "not-json", 3)]
    assert await rows(database, "SELECT FROM circuit.deliveries") == []


async def test_refusals_that_could_not_be_written_are_kept_for_later(database, intake_on):
    way = Restartable(database)
    way.open = False
    async with intake_on(database, ledger=CountingLedger(way.connect)) as intake:
        intake.refusals.add("gohighlevel", "not-json")
        await intake.refusals.flush()
        way.open = True
    assert await rows(database, "SELECT n FROM circuit.refusals") == [(1,)]


async def test_an_intake_that_closes_finishes_what_waits_and_refuses_what_comes(database, intake_on):
    async with intake_on(database) as intake:
        waiting = [asyncio.create_task(take(intake, contact(id_=f"W{n}"))) for n in range(10)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*waiting)
    assert len(await rows(database, "SELECT FROM circuit.deliveries")) == len(answers) == 10
    with pytest.raises(IntakeRefused, match="send again"):
        await take(intake, contact(id_="W10"))


async def test_a_connection_that_breaks_under_a_statement_is_told_apart_from_bad_rows(database):
    way = Restartable(database)
    ledger = Ledger(way.connect)
    await ledger.run("SELECT 1", ())
    (connection,) = way.connections
    wire = socket.socket(fileno=connection.fileno())
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.shutdown(socket.SHUT_RDWR)
    wire.detach()
    with pytest.raises(LedgerAway):
        await ledger.run("SELECT 1", ())
    assert await ledger.run("SELECT 1", ()) == [(1,)]
    await ledger.close()
