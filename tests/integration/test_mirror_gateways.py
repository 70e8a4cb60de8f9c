"""Several gateways in front of one old service: at a cutover and back each delivery is acted on by one side."""

import json
import random
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg import sql

from circuit_script.events.mirror_moves import NEW, OLD
from circuit_script.gateway import mirrors
from tests.gateways import answers_in, contact, post, request, running, send, signed
from tests.mirror_door import Door, mirroring, opened
from tests.old_service import old_service
from tests.servers import until

MANY = 1500
HEARD = (
    "SELECT count(*) FROM circuit.mirror_gateways g JOIN circuit.mirrors m ON m.source = g.source AND g.knows = m.since"
)


@pytest.fixture
def doors(database, tmp_path):
    """Two gateways."""
    with (
        opened(database, tmp_path / "first") as first,
        running(database, mirroring(tmp_path / "second", first.old.url)) as port,
    ):
        yield first, Door(port, first.old, database)


@contextmanager
def meanwhile(door, body, act=""):
    """Sent, and answered by the end."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(door.post(body, act)))
    thread.start()
    yield answers
    thread.join(20)


@contextmanager
def sent(door, body):
    """Read by the gateway, and not answered yet; gives what waits for the answer."""
    with socket.create_connection(("127.0.0.1", door.port), 20) as wire:
        wire.sendall(request("POST", "/webhooks/gohighlevel", signed(body), body))
        wire.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.recv(1)
        wire.settimeout(20)
        yield lambda: answers_in(wire.recv(65536))[0]


def followed(door, gateways=2):
    until(lambda: door.rows(HEARD) == [(gateways,)], "all gateways know of the move", 5)
    ((now,),) = door.rows("SELECT clock_timestamp() + interval '0.2 s'")
    looked = "SELECT count(*) FROM circuit.mirror_gateways WHERE at > %s"
    until(lambda: door.rows(looked, now) == [(gateways,)], "and have looked again", 5)


def test_what_one_gateway_waits_for_is_not_acted_on_by_ours_through_another(doors):
    first, second = doors
    with meanwhile(first, contact("W1"), "hang") as answers:
        until(lambda: len(first.old.heard) == 1, "the old service has it")
        first.move(NEW)
        followed(first)
        with sent(second, contact("W1")) as answer:
            first.old.release.set()
            again = answer()
    ((known,),) = first.rows("SELECT id::text FROM circuit.deliveries")
    assert answers[0].json == {"score": 1}
    assert (again.status, again.json) == (200, {"id": known})
    assert (first.queued("W1"), len(first.old.heard)) == (0, 1)


def test_what_ours_has_not_stored_yet_is_not_forwarded_through_another(doors):
    first, second = doors
    first.move(NEW)
    until(lambda: "id" in first.post(contact("new")).json, "ours acts", 5)
    heard = len(first.old.heard)
    with psycopg.connect(first.url) as blocking:
        blocking.execute("LOCK TABLE circuit.deliveries IN SHARE MODE")
        with meanwhile(first, contact("W1")) as answers:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%take_in%%'"
            until(lambda: first.rows(waits) == [(1,)], "ours has it, and cannot store it")
            first.move(OLD)
            followed(first)
            with sent(second, contact("W1")) as answer:
                blocking.rollback()
                again = answer()
    assert answers[0].status == 202
    assert (again.status, again.json) == (200, answers[0].json)
    assert (first.queued("W1"), len(first.old.heard)) == (1, heard)


def test_who_acts_is_decided_when_a_delivery_is_there_whole(doors):
    first, second = doors
    body = contact("W1")
    whole = request("POST", "/webhooks/gohighlevel", signed(body), body)
    with socket.create_connection(("127.0.0.1", first.port), 20) as wire:
        wire.sendall(whole[:-5])
        assert send(first.port, "GET", "/healthz").status == 200
        first.move(NEW)
        until(lambda: all("id" in each.post(contact("new")).json for each in doors), "ours acts", 5)
        heard = len(first.old.heard)
        wire.sendall(whole[-5:])
        (answer,) = answers_in(wire.recv(65536))
    assert (answer.status, first.queued("W1"), len(first.old.heard)) == (202, 1, heard)
    assert second.post(body).status == 200


def test_a_gateway_that_stops_is_waited_for_no_more(database, tmp_path):
    with opened(database, tmp_path / "first") as first:
        with running(database, mirroring(tmp_path / "second", first.old.url)):
            until(lambda: first.rows("SELECT count(*) FROM circuit.mirror_gateways") == [(2,)], "both say so")
        assert first.rows("SELECT count(*) FROM circuit.mirror_gateways") == [(1,)]


def test_what_nobody_signed_takes_no_room_from_what_is_kept(database, tmp_path, monkeypatch):
    monkeypatch.setattr(mirrors, "MOST_KEPT", 3)
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    shut = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with opened(database, tmp_path) as door, psycopg.connect(database, dbname="postgres", autocommit=True) as server:
        server.execute(shut.format(sql.Identifier(name), sql.SQL("false")))
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for number in range(20):
            assert post(door.port, contact(f"U{number}"), {}).json == {"score": 78}
        assert door.post(contact("W1")).json == {"score": 78}
        server.execute(shut.format(sql.Identifier(name), sql.SQL("true")))
        assert door.kept("W1")[:2] == ("pending", 200)
        took = "SELECT n FROM circuit.refusals WHERE reason = 'old-service-took-it'"
        until(lambda: door.rows(took) == [(20,)], "it is told that the old service took them")


@pytest.mark.parametrize("account", ["..", ".", "%2e%2e", "%2E."])
def test_an_account_is_no_way_to_another_place_of_the_old_service(database, tmp_path, account):
    with old_service() as old:
        url = f"http://127.0.0.1:{old.port}/hooks/{{account}}/in"
        (tmp_path / "circuit.toml").write_text(f'[mirror.standard]\nurl = "{url}"\n')
        with running(database, tmp_path) as port:
            assert send(port, "POST", f"/webhooks/standard/{account}", {}, b"{}").status == 404
            assert old.heard == []
            assert send(port, "POST", "/webhooks/standard/a..b", {}, b"{}").json == {"score": 78}
            assert [each.line for each in old.heard] == ["POST /hooks/a..b/in HTTP/1.1"]


@pytest.mark.slow
def test_however_often_it_moves_and_whoever_sends_again_each_delivery_is_acted_on_by_one_side(database, tmp_path):
    answered = set()

    with opened(database, tmp_path / "first") as first:
        first.old.slow = 0.4  # slower than its vendor's patience, now and then
        with running(database, mirroring(tmp_path / "second", first.old.url)) as port:
            left = deque(f"W{number}" for number in range(MANY))

            def vendor():
                while left:
                    id_ = left.popleft()
                    while id_ not in answered:
                        if _patiently(random.choice((first.port, port)), contact(id_)):
                            answered.add(id_)

            threads = [threading.Thread(target=vendor) for _ in range(8)]
            for thread in threads:
                thread.start()
            moves = 0
            while any(thread.is_alive() for thread in threads):
                first.move((NEW, OLD)[moves % 2])
                moves += 1
                time.sleep(0.5)  # a move in the midst of it, whenever that is
            for thread in threads:
                thread.join()
            said = "SELECT count(*) FROM circuit.mirror_gateways WHERE open > 0"
            until(lambda: first.rows(said) == [(0,)], "nothing is open")
        ours = {
            id_ for (id_,) in first.rows(
                "SELECT d.vendor_id FROM circuit.deliveries d JOIN circuit.queue q ON q.delivery = d.id"
            )
        }  # fmt: skip
    theirs = {json.loads(each)["webhookId"] for each in first.heard()}
    assert ours & theirs == set()
    assert len(ours | theirs) == MANY
    assert min(len(ours), len(theirs)) > MANY // 10
    assert moves > 4


def _patiently(port, body):
    """Whether it was answered within the vendor's patience."""
    with socket.create_connection(("127.0.0.1", port), 20) as wire:
        wire.sendall(request("POST", "/webhooks/gohighlevel", signed(body), body))
        wire.settimeout(0.3)
        with suppress(TimeoutError, ConnectionError):
            return wire.recv(65536).startswith((b"HTTP/1.1 200", b"HTTP/1.1 202"))
    return False
