"""A real gateway in front of an old service that answers one source: what each of the two gets, and what is kept."""

import itertools
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from hashlib import sha256

import psycopg
import pytest
from psycopg import sql

from circuit_script.events.mirror_moves import NEW, OLD
from tests.gateways import MAX_BODY, PEM, answers_in, chunked_head, contact, post, raw, request, running, send, signed
from tests.mirror_door import Door, mirroring, opened
from tests.old_service import LARGE, old_service
from tests.servers import until

EMPTY = "TRUNCATE circuit.deliveries, circuit.events, circuit.mirrored, circuit.seen, circuit.refusals"


@pytest.fixture(scope="module")
def standing(module_database, tmp_path_factory):
    with opened(module_database, tmp_path_factory.mktemp("app")) as door:
        yield door


@pytest.fixture
def door(standing):
    """One for all tests that move nothing; each waits for what it has sent to be kept."""
    with psycopg.connect(standing.url, autocommit=True) as connection:
        connection.execute(EMPTY)
    standing.old.heard.clear()
    return standing


@pytest.fixture
def moving(database, tmp_path):
    with opened(database, tmp_path) as door:
        yield door


def test_the_old_service_gets_what_came_and_its_answer_goes_back_as_it_is(door):
    body = contact("W1")
    headers = signed(body) | {
        "X-Act": "packed", "X-Odd": "a, b", "X-Private": "1", "TE": "trailers", "Keep-Alive": "timeout=5",
    }  # fmt: skip
    head = request("POST", "/webhooks/gohighlevel?a=%20b&c", headers, body)
    (answer,) = answers_in(raw(door.port, head.replace(b"Connection: close", b"Connection: close, X-Private")))

    (heard,) = door.old.heard
    assert heard.line == "POST /old/hook?token=t1&a=%20b&c HTTP/1.1"
    assert heard.body == body
    assert heard.values("x-odd") == ["a, b"]
    assert heard.values("x-ghl-signature") == [signed(body)["X-GHL-Signature"]]
    assert heard.values("host") == [f"127.0.0.1:{door.old.port}"]
    assert heard.values("x-forwarded-host") == ["localhost"]
    assert heard.values("content-length") == [str(len(body))]
    added = {"accept", "accept-encoding", "user-agent", "cookie", "x-private", "te", "keep-alive", "transfer-encoding"}
    assert not added & {name.lower() for name, _ in heard.headers}

    assert answer.status == 201
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["set-cookie"] == "b=2"
    assert "x-hop" not in answer.headers
    assert door.kept("W1")[:3] == ("pending", 201, b'{"score": 78}')


def test_what_the_old_service_took_is_in_the_ledger_and_not_on_the_queue(door):
    assert door.post(contact("W1")).json == {"score": 78}
    assert door.kept("W1") == ("pending", 200, b'{"score": 78}', "")
    assert door.queued("W1") == 0
    events = door.rows("SELECT e.tenant, e.handled FROM circuit.events e")
    assert events == [("default", -1)]
    assert door.rows("SELECT tenant, vendor_id, body FROM circuit.deliveries") == [("default", "W1", contact("W1"))]


def test_a_duplicate_is_the_old_services_to_know_and_is_compared_once(door):
    first, again = door.post(contact("W1")), door.post(contact("W1"))
    door.post(contact("W2"))
    door.kept("W2")
    assert (first.status, again.status) == (200, 200)
    assert first.body == again.body
    assert len(door.old.heard) == 3
    assert len(door.mirrored("W1")) == 1


def test_a_delivery_that_nobody_signed_is_forwarded_and_counted_and_not_kept(door):
    assert post(door.port, contact("W1"), {}).json == {"score": 78}
    assert door.heard() == [contact("W1")]
    until(lambda: door.rows("SELECT n FROM circuit.refusals WHERE reason = 'missing-signature'") == [(1,)], "counted")
    assert door.rows("SELECT count(*) FROM circuit.deliveries") == [(0,)]


@pytest.mark.parametrize(
    "act",
    ["silent", "half", "nonsense", "both-lengths", "odd-coding", "odd-header", "odd-status", "endless-head", "upgrade"],
)
def test_a_broken_answer_makes_the_vendor_send_again(door, act):
    answer = door.post(contact("W1"), act)
    assert answer.status == 429, "by which this vendor sends again"
    state, status, _, why = door.kept("W1")
    assert (state, status, why) == ("silent", 0, "the old service did not answer")
    assert door.rows("SELECT count(*) FROM circuit.seen") == [(0,)]


def test_an_answer_in_pieces_is_one_answer(door):
    assert door.post(contact("W1"), "pieces").json == {"score": 7}
    assert door.kept("W1")[2] == b'{"score": 7}'


@pytest.mark.parametrize("act", ["interim", "until-closed", "old-http"])
def test_an_answer_of_another_form_is_an_answer(door, act):
    for number in range(3):  # also by a connection that was used before
        assert door.post(contact(f"W{number}"), act).json == {"score": 7}
        assert door.post(contact(f"V{number}")).json == {"score": 78}
        assert door.kept(f"W{number}")[:3] == ("pending", 200, b'{"score": 7}')


def test_what_is_said_unasked_is_nobodys_answer(door):
    for number in range(5):
        assert door.post(contact(f"W{number}"), "twice").json == {"score": 78}
        assert door.post(contact(f"V{number}")).json == {"score": 78}
    assert len(door.heard()) == 10
    door.kept("V4")


def test_a_head_has_the_length_of_an_answer_and_none_of_it(door):
    received = raw(door.port, request("HEAD", "/webhooks/gohighlevel", {}, b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 13" in head.lower()
    assert body == b""
    assert door.old.heard[-1].values("content-length") == []


def test_an_answer_without_a_body_has_none(door):
    received = raw(door.port, request("POST", "/webhooks/gohighlevel", {"X-Act": "empty"}, contact("W1")))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 204 ")
    assert body == b""
    assert b"content-length" not in head.lower()


def test_a_redirect_goes_back_and_nobody_follows_it(door):
    answer = door.post(contact("W1"), "moved")
    assert (answer.status, answer.headers["location"]) == (302, "http://169.254.169.254/latest")
    assert door.kept("W1")[:2] == ("silent", 302)


def test_a_large_answer_passes_whole_and_only_its_beginning_is_kept(door):
    answer = door.post(contact("W1"), "much")
    assert sha256(answer.body).digest() == sha256(b"y" * LARGE).digest()
    assert len(door.kept("W1")[2]) == 64 * 1024


def test_half_of_a_large_answer_does_not_look_like_a_whole_one(door):
    received = raw(door.port, request("POST", "/webhooks/gohighlevel", {"X-Act": "half-of-much"}, contact("W1")))
    assert len(received) < LARGE


def test_an_old_service_that_hangs_is_given_up_and_others_go_on(database, tmp_path):
    with old_service() as old, running(database, mirroring(tmp_path, old.url, timeout=0.3)) as port:
        body = contact("W1")
        assert post(port, body, signed(body) | {"X-Act": "hang"}).status == 429
        assert post(port, contact("W2")).json == {"score": 78}
        unsigned = send(port, "POST", "/webhooks/standard/acme", {}, b"{}")
        assert unsigned.status == 401, "another source is ours"


def test_a_body_that_is_too_large_is_refused_before_anybody_gets_it(door):
    assert door.post(b"x" * (MAX_BODY + 1)).status == 413
    assert door.old.heard == []


def test_a_chunked_body_arrives_whole_with_its_length(door):
    body = contact("W1")
    pieces = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    (answer,) = answers_in(raw(door.port, chunked_head(body), pieces))
    assert answer.json == {"score": 78}
    (heard,) = door.old.heard
    assert (heard.body, heard.values("content-length")) == (body, [str(len(body))])
    assert heard.values("transfer-encoding") == []
    door.kept("W1")


@pytest.mark.parametrize(
    "extra",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 60\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n",
        b"X-A: 1\r\n Content-Length: 70\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nX\x00-A: 1\r\n",
    ],
)
def test_no_second_request_is_smuggled_past_the_gateway(door, extra):
    inner = b"GET /old/secret HTTP/1.1\r\nHost: h\r\nX-Act: 404\r\n\r\n"
    raw(door.port, b"POST /webhooks/gohighlevel HTTP/1.1\r\nHost: localhost\r\n" + extra + b"\r\n0\r\n\r\n" + inner)
    assert door.post(contact("W1")).status == 200
    lines = [each.line for each in door.old.heard]
    assert all(line == "POST /old/hook?token=t1 HTTP/1.1" for line in lines), lines
    door.kept("W1")


def test_while_the_database_is_away_the_old_service_answers_and_what_it_said_is_kept_later(door):
    name = psycopg.conninfo.conninfo_to_dict(door.url)["dbname"]
    with psycopg.connect(door.url, dbname="postgres", autocommit=True) as connection:
        shut = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        connection.execute(shut.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        answers = [door.post(contact(f"W{n}")) for n in range(3)]
        assert [each.json for each in answers] == [{"score": 78}] * 3
        connection.execute(shut.format(sql.Identifier(name), sql.SQL("true")))
    for n in range(3):
        assert door.kept(f"W{n}")[:2] == ("pending", 200)


def test_after_the_cutover_ours_acts_once_on_what_the_old_service_did_not_take(moving, tmp_path):
    door = moving
    with running(door.url, mirroring(tmp_path / "second", door.old.url)) as second:
        gateways = [Door(each, door.old, door.url) for each in (door.port, second)]
        door.post(contact("taken"))
        assert door.post(contact("failed"), "500").status == 500
        door.kept("taken")
        assert door.kept("failed")[0] == "silent"
        door.move(NEW)
        for number, gateway in enumerate(gateways):
            until(lambda at=gateway, n=number: "id" in at.post(contact(f"new-{n}")).json, "ours answers", 5)
        said = len(door.old.heard)
        for gateway in gateways:
            assert gateway.post(contact("taken")).status == 200
        assert [each.post(contact("failed")).status for each in gateways] == [202, 200]
        assert len(door.old.heard) == said, "it hears nothing more"
        assert (door.queued("taken"), door.queued("failed")) == (0, 1)

        door.move(OLD)
        ids = (f"back-{n}" for n in itertools.count())
        for gateway in gateways:
            until(lambda at=gateway: at.post(contact(next(ids))).json == {"score": 78}, "it answers again", 5)
        said = len(door.old.heard)
        for gateway in gateways:
            assert gateway.post(contact("failed")).status == 200
        assert len(door.old.heard) == said, "what ours took is not the old service's, too"


LOOKED = """
SELECT count(*) FROM pg_stat_activity a, circuit.mirrors m
WHERE a.datname = current_database() AND a.application_name = 'circuit-script status'
  AND a.query LIKE '%%FROM circuit.mirrors%%'
  AND a.state = 'idle' AND a.query_start > m.since
"""


def test_who_sends_again_while_the_old_service_still_works_is_not_acted_on_by_ours(moving):
    door, answers = moving, []
    late = threading.Thread(target=lambda: answers.append(door.post(contact("W1"), "hang")))
    late.start()
    until(lambda: len(door.old.heard) == 1, "the old service has it")
    door.move(NEW)
    until(lambda: door.rows(LOOKED) != [(0,)], "the gateway knows")
    with socket.create_connection(("127.0.0.1", door.port), 20) as wire:
        body = contact("W1", note="again")
        wire.sendall(request("POST", "/webhooks/gohighlevel", signed(body), body))
        assert send(door.port, "GET", "/healthz").status == 200, "it has read both"
        door.old.release.set()
        (again,) = answers_in(wire.recv(65536))
    late.join(20)
    ((first,),) = door.rows("SELECT id::text FROM circuit.deliveries")
    assert (again.status, again.json) == (200, {"id": first})
    assert [each.json for each in answers] == [{"score": 1}]
    assert door.queued("W1") == 0
    assert len(door.old.heard) == 1


GATEWAY = """
import sys
import uvloop
from pathlib import Path
from circuit_script.config import GatewaySettings, GoHighLevelSettings, Settings, SourceSettings
from circuit_script.gateway.serve import run_gateway
sources = SourceSettings(gohighlevel=GoHighLevelSettings(public_key=sys.argv[2]))
settings = Settings(folder=Path(sys.argv[3]), gateway=GatewaySettings(port=0), sources=sources)
uvloop.run(run_gateway(settings, sys.argv[1], on_ready=lambda address: print(address, flush=True)))
"""


def test_a_gateway_that_is_killed_between_forward_and_answer_leaves_nothing_half_done(database, tmp_path):
    with old_service() as old, running(database, mirroring(tmp_path / "second", old.url)) as second:
        command = [sys.executable, "-c", GATEWAY, database, PEM, str(mirroring(tmp_path, old.url))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            try:
                port = int(process.stdout.readline().decode().rpartition(":")[2])
                body = contact("W1")
                with socket.create_connection(("127.0.0.1", port), 20) as wire:
                    wire.sendall(request("POST", "/webhooks/gohighlevel", signed(body) | {"X-Act": "hang"}, body))
                    until(lambda: len(old.heard) == 1, "the old service has it")
                    process.kill()
                    with suppress(ConnectionResetError):
                        assert wire.recv(65536) == b"", "no answer: its vendor sends again"
            finally:
                process.kill()
        door = Door(second, old, database)
        assert door.rows("SELECT count(*) FROM circuit.deliveries") == [(0,)]
        assert door.post(body).json == {"score": 78}
        assert door.kept("W1")[:2] == ("pending", 200)
