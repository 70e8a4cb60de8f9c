"""A real gateway on a loopback port, spoken to over raw sockets."""

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import sha256

import psycopg
import pytest
from standardwebhooks.webhooks import Webhook

from circuit_script.clock import now
from circuit_script.errors import DatabaseUnavailable, StartError
from circuit_script.gateway import protocol
from circuit_script.gateway.serve import listen, run_gateway
from tests import servers
from tests.gateways import (
    MAX_BODY,
    PEM,
    SECRET,
    answers_in,
    assert_problem,
    chunked_head,
    configured,
    contact,
    post,
    raw,
    request,
    running,
    send,
    signed,
)


def fetch(url, query, *parameters):
    with psycopg.connect(url) as connection:
        return connection.execute(query, parameters).fetchall()


def test_a_delivery_is_accepted_with_its_id_and_a_duplicate_answered_with_the_first_ones(port, module_database):
    first, again = post(port, contact("W1")), post(port, contact("W1"))
    assert (first.status, again.status) == (202, 200)
    assert first.json == again.json
    found = fetch(module_database, "SELECT id::text FROM circuit.deliveries WHERE vendor_id = 'W1'")
    assert found == [(first.json["id"],)]


def test_standard_webhooks_arrive_at_their_account(port, module_database):
    body = b'{"type": "Contact.afterInsert", "data": {"id": "C1"}}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now().timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now(), body.decode()),
    }
    assert post(port, body, headers, "/webhooks/standard/acme").status == 202
    assert_problem(post(port, body, headers, "/webhooks/standard/other"), 401, "unknown-account")
    old = headers | {"webhook-timestamp": str(int(now().timestamp()) - 600)}
    assert_problem(post(port, body, old, "/webhooks/standard/acme"), 401)
    query = "SELECT account, tenant FROM circuit.deliveries WHERE vendor_id = 'msg_1'"
    assert fetch(module_database, query) == [("acme", "default")]


def test_the_trace_of_whoever_sent_it_is_kept_with_a_delivery(port, module_database):
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = contact("W-traced")
    assert post(port, body, signed(body) | {"TraceParent": header}).status == 202
    query = "SELECT headers ->> 'traceparent' FROM circuit.deliveries WHERE vendor_id = 'W-traced'"
    assert fetch(module_database, query) == [(header,)]


def test_an_unknown_type_is_accepted(port):
    assert post(port, b'{"type": "MoonPhase", "webhookId": "W-moon"}').status == 202


def test_pipelined_and_kept_alive_requests_are_answered_in_order(port):
    bodies = [contact(f"P{n}") for n in range(5)]
    requests = [request("POST", "/webhooks/gohighlevel", signed(body), body) for body in bodies]
    requests[:-1] = [each.replace(b"Connection: close\r\n", b"") for each in requests[:-1]]
    answers = answers_in(raw(port, b"".join(requests)))
    assert [each.status for each in answers] == [202] * 5
    assert len({each.json["id"] for each in answers}) == 5


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "reason"),
    [
        ("/webhooks/gohighlevel", {}, b"{}", 401, "missing-signature"),
        ("/webhooks/gohighlevel", {"X-GHL-Signature": "AAAA"}, b"{}", 401, "bad-signature"),
        ("/webhooks/gohighlevel", None, b"{", 400, "not-json"),
        ("/webhooks/gohighlevel", None, b"", 400, "not-json"),
        ("/webhooks/gohighlevel", None, b"[]", 400, "not-an-object"),
        ("/webhooks/gohighlevel", None, b"[" * 15_000, 400, "nested-too-deeply"),
        ("/webhooks/gohighlevel", None, b" " * (MAX_BODY + 1), 413, "too-large"),
        ("/webhooks/gohighlevel/", None, b"{}", 404, "unknown-source"),
        ("/webhooks/gohighlevel/x", None, b"{}", 404, "unknown-source"),
        ("/webhooks/standard", None, b"{}", 404, "unknown-source"),
        ("/webhooks/standard/", None, b"{}", 404, "unknown-account"),
        ("/webhooks/standard/a/b", None, b"{}", 404, "unknown-account"),
        ("/webhooks/standard/a%00b", None, b"{}", 404, "unknown-account"),
        ("/webhooks/nobody", None, b"{}", 404, "unknown-source"),
        ("/webhooks/", None, b"{}", 404, "unknown-source"),
        ("/webhooks/..%2fapi", None, b"{}", 404, "unknown-source"),
        ("/webhooks", None, b"{}", 404, None),
        ("/nowhere", None, b"{}", 404, None),
        ("/api/status/", None, b"{}", 404, None),
    ],
)
def test_bad_input_gets_a_problem_with_its_reason(port, path, headers, body, status, reason):
    assert_problem(post(port, body, headers, path), status, reason)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_told_the_right_one(port, method):
    answer = send(port, method, "/webhooks/gohighlevel")
    assert_problem(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "POST"


def test_two_signatures_are_none(port):
    body = contact("W-two")
    good = request("POST", "/webhooks/gohighlevel", signed(body), body)
    line = next(line for line in good.split(b"\r\n") if line.startswith(b"X-GHL"))
    (answer,) = answers_in(raw(port, good.replace(line, line + b"\r\n" + line)))
    assert_problem(answer, 401, "bad-signature")


def chunked(body, size):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_a_body_in_chunks_is_put_together(port, size):
    body = contact(f"W-chunks-{size}")
    (answer,) = answers_in(raw(port, chunked_head(body), chunked(body, size)))
    assert answer.status == 202


def test_a_body_that_is_too_large_in_chunks_is_refused_as_well(port):
    body = b" " * (MAX_BODY * 10)
    (answer,) = answers_in(raw(port, chunked_head(body), chunked(body, 4096)))
    assert_problem(answer, 413, "too-large")


def test_a_body_without_end_is_refused(port):
    endless = (b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(10**9))
    wire = socket.create_connection(("127.0.0.1", port), 20)
    with wire, suppress(BrokenPipeError, ConnectionResetError):
        wire.sendall(chunked_head(b""))
        for part in endless:
            wire.sendall(part)
    assert send(port, "GET", "/healthz").status == 200


def test_who_asks_before_sending_too_much_is_answered_without_it(port):
    head = request("POST", "/webhooks/gohighlevel", {"Expect": "100-continue"})
    (answer,) = answers_in(raw(port, head.replace(b"Content-Length: 0", b"Content-Length: 99999999")))
    assert_problem(answer, 413, "too-large")


def test_a_body_shorter_than_it_claims_leaves_nothing(port, module_database):
    body = contact("W-short")
    lying = request("POST", "/webhooks/gohighlevel", signed(body), body)
    lying = lying.replace(b"Content-Length: ", b"Content-Length: 1")
    raw(port, lying, half_close=True, timeout=1.0)
    assert fetch(module_database, "SELECT FROM circuit.deliveries WHERE vendor_id = 'W-short'") == []


def test_headers_without_end_are_refused(port):
    head = b"POST /webhooks/gohighlevel HTTP/1.1\r\nHost: x\r\n"
    received = raw(port, head, *[b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(300)])
    assert answers_in(received) == [] or answers_in(received)[0].status == 431
    assert send(port, "GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (b"", 408),
        (b"\r\n", 408),
        (b"POST /webhooks/gohigh", 408),
        (b"POST /webhooks/gohighlevel HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 408),
        (b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 404),
    ],
)
def test_a_request_that_does_not_end_is_given_up(module_database, tmp_path, monkeypatch, part, status):
    monkeypatch.setattr(protocol, "MAX_SECONDS", 0.3)
    with running(module_database, tmp_path) as port:
        received = raw(port, part)
    (answer,) = answers_in(received)
    assert_problem(answer, status)


def test_refusals_are_counted_by_source_and_reason(module_database, tmp_path):
    query = "SELECT sum(n) FROM circuit.refusals WHERE (source, reason) = (%s, %s)"
    pairs = [("unknown", "unknown-source"), ("gohighlevel", "missing-signature"), ("gohighlevel", "wrong-method")]
    before = [fetch(module_database, query, *pair)[0][0] or 0 for pair in pairs]
    with running(module_database, tmp_path) as port:
        post(port, b"{}", {}, "/webhooks/nobody")
        post(port, b"{}", {})
        send(port, "GET", "/webhooks/gohighlevel")
    after = [fetch(module_database, query, *pair)[0][0] for pair in pairs]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1]


def test_overload_is_answered_with_retry_after(database, tmp_path):
    with running(database, tmp_path, max_waiting=1) as port, psycopg.connect(database) as other:
        other.execute("LOCK TABLE circuit.deliveries")
        wires = []
        try:
            for n in range(2):  # one in the commit that waits for the lock, one behind it
                wires.append(socket.create_connection(("127.0.0.1", port), 10))
                body = contact(f"W{n}")
                wires[-1].sendall(request("POST", "/webhooks/gohighlevel", signed(body), body))
                servers.until(lambda: waits_for_lock(database), "the first group waits for the lock")
            refused = until_refused(port)
            assert_problem(refused, 429, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            other.rollback()
            first = [wire.recv(65536) for wire in wires]
        finally:
            for wire in wires:
                wire.close()
    assert all(each.startswith(b"HTTP/1.1 202") for each in first)


def waits_for_lock(url):
    return fetch(url, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%take_in%%'") != []


def until_refused(port):
    """The second delivery may still be on its way, so that another one would wait too."""
    found = []

    def refused():
        body = contact(f"W-late-{len(found)}")
        with suppress(ValueError):  # no answer in time: it waits
            found[:] = answers_in(raw(port, request("POST", "/webhooks/gohighlevel", signed(body), body), timeout=0.3))
        return bool(found)

    servers.until(refused, "a delivery is refused")
    return found[0]


def test_health_and_readiness(port):
    assert send(port, "GET", "/healthz").json == {"status": "ok"}
    assert send(port, "GET", "/readyz").json == {"status": "ready"}


def test_the_status_is_json_with_what_was_received(port, module_database):
    before = send(port, "GET", "/api/status").json
    post(port, contact("W-status"))
    found = {}

    def counted():
        found.update(send(port, "GET", "/api/status").json)
        return found["received"] > before["received"]

    servers.until(counted, "the delivery is counted")
    assert found["received"] == len(fetch(module_database, "SELECT FROM circuit.deliveries"))
    assert found["unrouted"] == found["events"] >= 1
    assert found["queue_depth"] == 0
    assert found["live"] is None


def test_the_page_needs_nothing_from_elsewhere(port):
    answer = send(port, "GET", "/")
    page = answer.body.decode()
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        content = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(sha256(content.encode()).digest()).decode()
        assert content
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for outside in ("https://", "//cdn", " src=", "@import", "innerHTML", "insertAdjacentHTML", "document.write"):
        assert outside not in page


@pytest.mark.parametrize("path", ["/", "/api/status"])
@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("evil.example", {}),
        ("localhost.evil.example", {}),
        ("10.0.0.1:80", {}),
        ("", {}),
        ("localhost", {"X-Forwarded-For": "127.0.0.1"}),
        ("localhost", {"Forwarded": "for=127.0.0.1"}),
    ],
)
def test_the_status_is_for_this_host_only(port, path, host, headers):
    assert_problem(send(port, "GET", path, headers, host=host), 403)


@pytest.mark.parametrize("path", ["/", "/api/status"])
@pytest.mark.parametrize("hosts", [("localhost", "evil.example"), ("evil.example", "localhost"), ("::1", "::1")])
def test_the_status_is_not_for_who_names_two_hosts(port, path, hosts):
    asked = request("GET", path, {"host": hosts[1]}, host=hosts[0])
    (answer,) = answers_in(raw(port, asked))
    assert_problem(answer, 400)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000"])
def test_the_status_is_shown_by_every_name_of_this_host(port, host):
    assert send(port, "GET", "/", host=host).status == 200


def test_a_wrong_method_elsewhere_is_a_problem_too(port):
    answer = send(port, "POST", "/healthz")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET"


def test_a_port_that_is_taken_refuses_the_start_with_a_cure(port, module_database, tmp_path):
    with pytest.raises(StartError, match=rf"Port {port} on 127.0.0.1 is taken. .*another port"):
        asyncio.run(run_gateway(configured(tmp_path, port=port), module_database))


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_a_host_that_is_not_ours_refuses_the_start(host):
    with pytest.raises(StartError, match=r"\[gateway\] host"):
        listen(host, 0)


def test_a_database_that_is_away_refuses_the_start(tmp_path):
    with pytest.raises(DatabaseUnavailable, match="Start the server"):
        asyncio.run(run_gateway(configured(tmp_path), f"postgresql://u:p@/x?host={tmp_path}"))


GATEWAY = """
import sys
import uvloop
from pathlib import Path
from circuit_script.config import *
from circuit_script.gateway.serve import run_gateway
sources = SourceSettings(gohighlevel=GoHighLevelSettings(public_key=sys.argv[2]))
settings = Settings(folder=Path(sys.argv[3]), gateway=GatewaySettings(port=0), sources=sources)
uvloop.run(run_gateway(settings, sys.argv[1], on_ready=lambda address: print(address, flush=True)))
"""


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_told_to_stop_finishes_what_it_accepted_and_exits_0(database, tmp_path, told):
    command = [sys.executable, "-c", GATEWAY, database, PEM, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        port = int(process.stdout.readline().decode().rpartition(":")[2])
        body = contact("W1")
        with psycopg.connect(database) as other, socket.create_connection(("127.0.0.1", port), 20) as wire:
            other.execute("LOCK TABLE circuit.deliveries")
            wire.sendall(request("POST", "/webhooks/gohighlevel", signed(body), body))
            servers.until(lambda: waits_for_lock(database), "the delivery is being committed")
            process.send_signal(told)
            servers.until(lambda: refuses_connections(port), "the gateway no longer listens")
            other.rollback()
            (answer,) = answers_in(wire.recv(65536))
        printed = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, printed) == (0, b"")
    assert answer.status == 202
    assert fetch(database, "SELECT id::text FROM circuit.deliveries") == [(answer.json["id"],)]


def refuses_connections(port):
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        time.sleep(0.01)
        return False
    return True
