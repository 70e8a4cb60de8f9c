from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.query import Fields, Page, Plan, Query, matches
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.broker.callouts.fetch import CalloutParts
from circuit_script.execution.outcome import Hint, Work
from circuit_script.governor import MB, LimitExceeded, Limits
from tests.loopback import NOBODY
from tests.receiver import Receiver, receiving, response


class Memory:
    """A CRM of one tenant's contacts."""

    def __init__(self, *rows: Fields) -> None:
        self.rows = {str(row["id"]): row for row in rows}
        self.asked: list[str] = []

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        self.asked.append(tenant)
        rows = [row for row in self.rows.values() if matches(row, query.where)]
        begin = int(after or 0)
        return Page(rows[begin : begin + size], str(begin + size) if begin + size < len(rows) else None)

    def explain(self, query: Query) -> Plan:
        return Plan("memory", ("all",), ordered=False)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        self.asked.append(tenant)
        return [self.rows.get(each) if object_ == "Contact" else None for each in ids]


class Kept:
    """A journal that outlives executions; ``batch`` says which record stands at an index."""

    def __init__(self, *batch: str) -> None:
        self.batch = batch
        self.replies: dict[tuple[str, bytes], bytes] = {}

    def of(self, *batch: str) -> Kept:
        other = Kept(*batch)
        other.replies = self.replies
        return other

    def _records(self, owner: int | None) -> Sequence[str]:
        return self.batch if owner is None else (self.batch[owner],)

    def find(self, owner: int | None, key: bytes) -> bytes | None:
        return next((self.replies[each, key] for each in self._records(owner) if (each, key) in self.replies), None)

    async def keep(self, owner: int | None, key: bytes, reply: bytes) -> None:
        self.replies |= {(each, key): reply for each in self._records(owner)}


class Bench:
    """A broker with everything around it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        batch: Sequence[str] = ("a", "b"),
        limits: Mapping[str, float] | None = None,
        crm: Memory | None = None,
        journal: Kept | None = None,
        remaining: float = 30.0,
    ) -> None:
        self.unit = UnitOfWork("Contact", batch)
        self.crm = crm or Memory()
        self.lines: list[dict[str, Any]] = []
        self.broker = ExecutionBroker(
            Work(
                execution=uuid7(),
                handler="h",
                tenant="acme",
                object="Contact",
                event="afterInsert",
                records=[{"id": each} for each in batch],
                old=[None] * len(batch),
                events=[{}] * len(batch),
                limits=Limits().lowered(**(limits or {})),
            ),
            BrokerParts(
                crm=self.crm,
                client=client,
                knows=lambda connector, target: (connector, target) == ("webhook", "alerts"),
                callouts=CalloutParts(attempts=1),
            ),
            held=self.unit,
            journal=journal or Kept(*batch),
            log=self.lines.append,
            remaining=lambda: remaining,
        )

    async def ask(self, verb: str, **arguments: Any) -> Any:
        return await self.broker.request(verb, arguments)

    async def http(self, url: str, **arguments: Any) -> Any:
        return await self.ask("http", method="GET", url=url, **arguments)

    async def alert(self) -> Any:
        return await self.ask("send", connector="webhook", operation="post", to="alerts", payload={})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=NOBODY) as made:
        yield made


@pytest.fixture
async def shop() -> AsyncIterator[Receiver]:
    async with receiving(lambda got: response(200, b"%d" % len(receiver.got))) as receiver:
        yield receiver


async def test_writes_are_held_and_counted(client: httpx.AsyncClient) -> None:
    bench = Bench(client)

    answer = await bench.ask("dml", op="update", object="Contact", rows=[{"id": "a", "x": 1}, {"id": "b"}])

    assert answer == {"ids": ["a", "b"]}
    assert [(each.op, each.id, each.owner) for each in bench.unit.writes] == [("update", "a", 0), ("update", "b", 1)]
    assert (bench.broker.usage.dml_statements, bench.broker.usage.dml_rows) == (1, 2)
    assert bench.crm.asked == [], "the batch's own records need not be looked up"


async def test_a_send_is_held_for_the_record_in_hand(client: httpx.AsyncClient) -> None:
    bench = Bench(client)

    answer = await bench.ask(
        "send", connector="webhook", operation="post", to="alerts", payload={"hot": True}, record=1
    )

    (held,) = bench.unit.sends
    assert answer == {"id": str(held.id)}
    assert (held.connector, held.operation, held.target, held.payload, held.owner) == (
        "webhook",
        "post",
        "alerts",
        {"hot": True},
        1,
    )
    assert UUID(answer["id"]).version == 7


@pytest.mark.parametrize(
    ("limit", "ceiling", "verb", "arguments"),
    [
        ("dml_statements", 1, "dml", {"op": "update", "object": "Contact", "rows": [{"id": "a"}]}),
        ("dml_rows", 3, "dml", {"op": "update", "object": "Contact", "rows": [{"id": "a"}, {"id": "b"}]}),
        ("db_queries", 1, "query", {"object": "Contact"}),
        ("db_queries", 1, "get", {"object": "Contact", "ids": ["a"]}),
        ("db_rows", 3, "query", {"object": "Contact"}),
        ("db_rows", 1, "get", {"object": "Contact", "ids": ["a"]}),
        ("callouts", 1, "connect", {"host": "8.8.8.8", "port": 53}),
    ],
)
async def test_each_limit_lets_its_ceiling_pass_and_breaks_at_one_more(
    client: httpx.AsyncClient, limit: str, ceiling: int, verb: str, arguments: dict[str, Any]
) -> None:
    bench = Bench(client, limits={limit: ceiling}, crm=Memory({"id": "a"}, {"id": "b"}))
    await bench.broker.request(verb, arguments)

    with pytest.raises(LimitExceeded) as caught:
        await bench.broker.request(verb, arguments)

    assert (caught.value.limit, caught.value.ceiling) == (limit, ceiling)
    assert getattr(bench.broker.usage, limit) == caught.value.used > ceiling


async def test_messages_are_limited_per_record_of_the_batch(client: httpx.AsyncClient) -> None:
    bench = Bench(client, batch=("a", "b", "c"), limits={"messages": 2})

    for _ in range(6):
        await bench.alert()
    with pytest.raises(LimitExceeded, match="messages: used 7 of 6"):
        await bench.alert()

    assert len(bench.unit.sends) == 6


async def test_a_breach_is_for_ever_and_for_every_request(client: httpx.AsyncClient) -> None:
    bench = Bench(client, limits={"db_queries": 1})
    await bench.ask("query", object="Contact")
    with pytest.raises(LimitExceeded) as first:
        await bench.ask("query", object="Contact")

    for verb, arguments in (
        ("dml", {"op": "insert", "object": "X", "rows": [{}]}),
        ("get", {"object": "Contact", "ids": []}),
        ("connect", {}),
        ("no such verb", {}),
    ):
        with pytest.raises(LimitExceeded) as later:
            await bench.broker.request(verb, dict(arguments))
        assert later.value.crossed == first.value.crossed
    assert bench.unit.writes == []


async def test_too_much_logging_is_a_breach_that_every_later_request_meets(client: httpx.AsyncClient) -> None:
    bench = Bench(client, limits={"log_bytes": 10})

    bench.broker.log({"message": "12345"})
    with pytest.raises(LimitExceeded, match="log_bytes"):
        bench.broker.log({"message": "67890", "context": {"a": 1}})

    assert [line["message"] for line in bench.lines] == ["12345"]
    with pytest.raises(LimitExceeded, match="log_bytes"):
        await bench.ask("get", object="Contact", ids=[])


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("shell", {}),
        ("dml", {}),
        ("dml", {"op": "update", "object": "Contact", "rows": 5}),
        ("dml", {"op": "update", "object": "Contact", "rows": ["a"]}),
        ("dml", {"op": "update", "object": "Contact", "rows": [{"x": 1}]}),
        ("dml", {"op": "truncate", "object": "Contact", "rows": [{"id": "a"}]}),
        ("dml", {"op": "update", "object": "Contact", "rows": [{"id": "a"}], "record": 2}),
        ("dml", {"op": "update", "object": "Contact", "rows": [{"id": "a"}], "record": -1}),
        ("dml", {"op": "update", "object": "Contact", "rows": [{"id": "a"}], "record": "a"}),
        ("query", {"object": "Contact", "where": ["id"]}),
        ("query", {"object": "Contact", "limit": "many"}),
        ("get", {"object": "Contact", "ids": None}),
        ("http", {"method": "GET"}),
        ("http", {"method": "GET", "url": "http://127.0.0.1", "headers": ["x"]}),
        ("http", {"method": "GET", "url": "gopher://x"}),
        ("http", {"method": "GET", "url": "http://[::1"}),
        ("http", {"method": "GET", "url": "http://127.0.0.1", "headers": {"a": "\n"}}),
        ("http", {"method": 5, "url": "http://127.0.0.1"}),
        ("send", {"connector": "webhook", "operation": "post", "to": "nobody", "payload": {}}),
        ("send", {"connector": "sms", "operation": "post", "to": "alerts", "payload": {}}),
        ("send", {"connector": "webhook", "operation": "post", "to": "alerts", "payload": "text"}),
        ("send", {"connector": "webhook", "operation": "post", "to": "alerts", "payload": {}, "record": 9}),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_holds_nothing(
    client: httpx.AsyncClient, verb: str, arguments: dict[str, Any]
) -> None:
    bench = Bench(client)

    with pytest.raises(RequestRefused):
        await bench.broker.request(verb, arguments)

    assert bench.unit.writes == []
    assert bench.unit.sends == []
    assert await bench.ask("dml", op="update", object="Contact", rows=[{"id": "a"}]) == {"ids": ["a"]}


async def test_an_address_that_is_not_configured_is_refused_with_the_cure(client: httpx.AsyncClient) -> None:
    with pytest.raises(RequestRefused, match=r"addresses\.pager"):
        await Bench(client).ask("send", connector="webhook", operation="post", to="pager", payload={})


@pytest.mark.parametrize("op", ["update", "delete"])
async def test_a_record_that_nobody_has_seen_cannot_be_changed(client: httpx.AsyncClient, op: str) -> None:
    bench = Bench(client, crm=Memory({"id": "stored"}))

    with pytest.raises(RequestRefused, match="there is no record 'ghost'"):
        await bench.ask("dml", op=op, object="Contact", rows=[{"id": "stored"}, {"id": "ghost"}])

    assert bench.unit.writes == []
    assert await bench.ask("dml", op=op, object="Contact", rows=[{"id": "stored"}]) == {"ids": ["stored"]}
    assert set(bench.crm.asked) == {"acme"}


async def test_what_was_read_or_made_in_this_execution_is_not_looked_up_again(client: httpx.AsyncClient) -> None:
    bench = Bench(client, crm=Memory({"id": "x"}, {"id": "y"}))
    await bench.ask("query", object="Contact", where={"id": "x"})
    await bench.ask("get", object="Contact", ids=["y"])
    (made,) = (await bench.ask("dml", op="insert", object="Note", rows=[{"text": "t"}]))["ids"]
    lookups = len(bench.crm.asked)

    await bench.ask("dml", op="update", object="Contact", rows=[{"id": "x"}, {"id": "y"}])
    await bench.ask("dml", op="delete", object="Note", rows=[{"id": made}])

    assert len(bench.crm.asked) == lookups
    with pytest.raises(RequestRefused):
        await bench.ask("dml", op="update", object="Note", rows=[{"id": "x"}])


async def test_reads_show_pending_writes(client: httpx.AsyncClient) -> None:
    bench = Bench(client, crm=Memory({"id": "a", "name": "Ann", "city": "Rome"}, {"id": "b", "city": "Oslo"}))
    await bench.ask("dml", op="upsert", object="Contact", rows=[{"id": "a", "city": "Oslo"}])
    await bench.ask("dml", op="update", object="Contact", rows=[{"id": "b", "city": "Bonn"}])

    found = await bench.ask("query", object="Contact", where={"city": "Oslo"})
    got = await bench.ask("get", object="Contact", ids=["b", "none"])

    assert found == [{"id": "a", "name": "Ann", "city": "Oslo"}], "whole, though it was not stored as in Oslo"
    assert got == [{"id": "b", "city": "Bonn"}, None]


@pytest.mark.parametrize(("limit", "rows"), [(None, 3), (2, 2)])
async def test_a_query_has_its_limit(client: httpx.AsyncClient, limit: int | None, rows: int) -> None:
    bench = Bench(client, crm=Memory({"id": "1"}, {"id": "2"}, {"id": "3"}))

    assert len(await bench.ask("query", object="Contact", limit=limit)) == rows
    assert bench.broker.usage.db_rows == rows


async def test_a_callout_answers_with_status_headers_and_body(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(418, b"\xff\0", x_kind="teapot")) as receiver:
        bench = Bench(client)
        answer = await bench.ask("http", method="POST", url=receiver.url + "/pot", headers={"x-a": "1"}, body=b"milk")

    assert (answer["status"], answer["body"]) == (418, b"\xff\0")
    assert ["x-kind", "teapot"] in answer["headers"]
    (got,) = receiver.got
    assert (got.line, got.headers["x-a"], got.body) == ("POST /pot HTTP/1.1", "1", b"milk")
    assert bench.broker.usage.callouts == 1


async def test_a_callout_that_fails_says_why_and_is_not_journaled(client: httpx.AsyncClient) -> None:
    journal = Kept("a", "b")
    async with receiving(lambda got: None) as receiver:
        bench = Bench(client, journal=journal)
        answer = await bench.http(receiver.url)

    assert answer["failed"] == "RemoteProtocolError"
    assert receiver.url in answer["said"]

    assert journal.replies == {}
    assert bench.broker.usage.callouts == 1


async def test_a_callout_gets_no_more_time_than_the_execution_has_left(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: b"") as receiver:
        answer = await Bench(client, remaining=0.1).http(receiver.url, timeout=60)

    assert answer["failed"] == "ReadTimeout"


@pytest.mark.parametrize("direction", ["sent", "received"])
async def test_a_body_over_the_limit_is_a_breach(client: httpx.AsyncClient, direction: str) -> None:
    async with receiving(lambda got: response(200, b"x" * 101 if direction == "received" else b"")) as receiver:
        bench = Bench(client, limits={"callout_bytes": 100})
        with pytest.raises(LimitExceeded, match="callout_bytes"):
            await bench.http(receiver.url, body=b"x" * 101 if direction == "sent" else None)

    assert len(receiver.got) == (direction == "received")


async def test_a_journaled_reply_is_reused_for_nothing(client: httpx.AsyncClient, shop: Receiver) -> None:
    journal = Kept("a", "b")
    first = Bench(client, journal=journal)
    paid = [await first.http(shop.url, record=0), await first.http(shop.url, record=1)]

    again = Bench(client, journal=journal, limits={"callouts": 1})
    free = [await again.http(shop.url, record=0), await again.http(shop.url, record=1)]

    assert free == paid
    assert [each["body"] for each in free] == [b"1", b"2"]
    assert again.broker.usage.callouts == 0
    assert len(shop.got) == 2


async def test_the_same_call_made_twice_has_two_replies_in_their_order(
    client: httpx.AsyncClient, shop: Receiver
) -> None:
    journal = Kept("a")
    first = Bench(client, batch=("a",), journal=journal)
    paid = [await first.http(shop.url), await first.http(shop.url)]

    again = Bench(client, batch=("a",), journal=journal)
    free = [await again.http(shop.url), await again.http(shop.url), await again.http(shop.url)]

    assert [each["body"] for each in paid] == [b"1", b"2"]
    assert [each["body"] for each in free] == [b"1", b"2", b"3"], "only the third left"
    assert again.broker.usage.callouts == 1


async def test_a_record_that_is_retried_alone_finds_the_reply_it_got_in_its_batch(
    client: httpx.AsyncClient, shop: Receiver
) -> None:
    journal = Kept("a", "b")
    batch = Bench(client, journal=journal)
    await batch.http(shop.url, record=0)
    reply = await batch.http(shop.url, record=1)

    alone = Bench(client, batch=("b",), journal=journal.of("b"))

    assert await alone.http(shop.url) == reply
    assert len(shop.got) == 2


async def test_a_call_for_the_whole_batch_is_found_by_each_of_its_parts(
    client: httpx.AsyncClient, shop: Receiver
) -> None:
    journal = Kept("a", "b", "c")
    reply = await Bench(client, batch=("a", "b", "c"), journal=journal).http(shop.url)

    for part in (("a",), ("b", "c")):
        assert await Bench(client, batch=part, journal=journal.of(*part)).http(shop.url) == reply
    assert len(shop.got) == 1


@pytest.mark.parametrize("change", [{"url": "/other"}, {"method": "POST"}, {"body": b"x"}, {"headers": {"x-key": "2"}}])
async def test_another_call_is_not_answered_from_the_journal(
    client: httpx.AsyncClient, shop: Receiver, change: dict[str, Any]
) -> None:
    journal = Kept("a")
    call = {"method": "GET", "url": "/", "headers": {"x-key": "1"}, "body": None}
    for each in (call, call | change):
        bench = Bench(client, batch=("a",), journal=journal)
        await bench.broker.request("http", each | {"url": shop.url + str(each["url"])})

    assert len(shop.got) == 2


async def test_what_is_held_for_the_outcome_is_bounded(client: httpx.AsyncClient) -> None:
    bench = Bench(client)
    large = {"id": "a", "text": "x" * (10 * MB)}

    for _ in range(3):
        await bench.ask("dml", op="update", object="Contact", rows=[large])
    with pytest.raises(LimitExceeded, match="effect_bytes"):
        await bench.ask("dml", op="update", object="Contact", rows=[large])


@pytest.mark.parametrize(("status", "asked"), [(503, 2), (429, 2), (404, 2), (200, 1), (304, 1)])
async def test_a_retry_asks_again_only_for_what_failed(client: httpx.AsyncClient, status: int, asked: int) -> None:
    async with receiving(lambda got: response(status)) as receiver:
        journal = Kept("a")
        for _ in range(2):
            bench = Bench(client, batch=["a"], journal=journal.of("a"))
            assert (await bench.http(receiver.url))["status"] == status

    assert len(receiver.got) == asked


async def test_a_compressed_answer_arrives_unpacked_and_its_ceiling_is_that_of_the_unpacked(
    client: httpx.AsyncClient,
) -> None:
    def answer(got: Any) -> bytes:
        return response(200, gzip.compress(b"x" * 1000), **{"content-encoding": "gzip"})

    async with receiving(answer) as receiver:
        found = await Bench(client).http(receiver.url)
        with pytest.raises(LimitExceeded, match="callout_bytes"):
            await Bench(client, limits={"callout_bytes": 999}).http(receiver.url)

    assert found["body"] == b"x" * 1000
    assert "content-encoding" not in dict(found["headers"])


async def test_a_body_that_claims_to_be_compressed_and_is_not_is_a_failure(client: httpx.AsyncClient) -> None:
    async with receiving(lambda got: response(200, b"plain", **{"content-encoding": "gzip"})) as receiver:
        assert (await Bench(client).http(receiver.url))["failed"] == "DecodingError"


async def test_a_checkpoint_is_handed_on_with_its_errors_and_bounded_decisions(client: httpx.AsyncClient) -> None:
    bench = Bench(client, batch=("a", "b", "c"))
    taken: list[Any] = []

    async def take(
        upto: int, errors: Mapping[int, str], decided: Mapping[int, float | None], hints: Mapping[int, Hint]
    ) -> None:
        taken.append((upto, errors, decided, hints))

    asked = {"upto": 1, "errors": [[0, "busy"], [1, "no"]], "decided": [[0, -3.0], [1, None]], "hints": [[0, ["E"], 5]]}
    assert await bench.broker.request("checkpoint", asked) is None, "without anybody who commits, it is taken as read"
    bench.broker._commit = take
    await bench.broker.request("checkpoint", asked)
    assert taken == [(1, {0: "busy", 1: "no"}, {0: 0.0, 1: None}, {0: Hint(("E",), 5.0)})]


@pytest.mark.parametrize(
    "asked",
    [
        {"upto": 2, "errors": [], "decided": []},
        {"upto": -1, "errors": [], "decided": []},
        {"upto": "1", "errors": [], "decided": []},
        {"upto": 1, "errors": [[0]], "decided": []},
        {"upto": 1, "errors": 7, "decided": []},
        {"upto": 1},
    ],
)
async def test_a_checkpoint_that_makes_no_sense_is_refused(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="checkpoint: "):
        await Bench(client).broker.request("checkpoint", asked)


def test_a_log_line_tells_the_id_of_its_record_not_its_place(client: httpx.AsyncClient) -> None:
    bench = Bench(client)
    for place in (1, None, 9, "x"):
        bench.broker.log({"message": "m", "record": place})
    assert [line["record"] for line in bench.lines] == ["b", None, None, None]


async def test_what_a_library_tells_of_its_request_may_be_nonsense(client: httpx.AsyncClient) -> None:
    for url in ("http://[::1", "", "http://", 5):
        with pytest.raises(RequestRefused):
            await Bench(client).ask("request", method="GET", url=url)
    refused = await Bench(client).ask("connect", host="127.0.0.1", port=80, names=["x"] * 1000, counted=True)
    assert "not public (loopback)" in refused["refused"][0]
