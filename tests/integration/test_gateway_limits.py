"""What a gateway does not hold, not believe and not do for strangers."""

import resource
import socket
from contextlib import ExitStack

import pytest

from circuit_script.errors import StartError
from circuit_script.gateway import protocol
from tests import servers
from tests.gateways import (
    MAX_BODY,
    answers_in,
    assert_problem,
    chunked_head,
    contact,
    post,
    raw,
    request,
    running,
    send,
    signed,
)


def connected(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def in_one_chunk(body, trailers=b""):
    return b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


def test_bodies_of_strangers_are_held_up_to_a_limit_and_then_sent_away(module_database, tmp_path):
    unfinished = request("POST", "/webhooks/gohighlevel", {}, b"x" * (MAX_BODY - 1))
    unfinished = unfinished.replace(b"Content-Length: %d" % (MAX_BODY - 1), b"Content-Length: %d" % MAX_BODY)
    large = contact("W-room", text="y" * (MAX_BODY - 200))
    with running(module_database, tmp_path, max_held=2 * MAX_BODY) as port, ExitStack() as wires:
        for _ in range(2):
            wires.enter_context(connected(port)).sendall(unfinished)
        refused = []

        def full():
            refused[:] = [post(port, large)]
            return refused[0].status == 429

        servers.until(full, "there is no room left")
        assert_problem(refused[0], 429, "overloaded")
        assert int(refused[0].headers["retry-after"]) > 0
        assert post(port, b"").status == 400, "what needs no room is still looked at"
        wires.close()
        servers.until(lambda: post(port, large).status in (200, 202), "who left has given the room back")


def test_what_was_answered_gives_its_room_back(module_database, tmp_path):
    large = contact("W-again", text="y" * (MAX_BODY - 200))
    pieces = [large[:9000], large[9000:]]
    with running(module_database, tmp_path, max_held=1) as port:
        for _ in range(3):
            assert post(port, large).status in (200, 202), "the largest body is always possible once"
            assert post(port, large, {}).status == 401
            assert post(port, b" " * (MAX_BODY + 1)).status == 413
            whole = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            (answer,) = answers_in(raw(port, chunked_head(large), whole[:9500], whole[9500:] + b"0\r\n\r\n"))
            assert answer.status == 200


def test_a_connection_too_many_is_told_to_come_later(module_database, tmp_path):
    with running(module_database, tmp_path, max_connections=2) as port, ExitStack() as wires:
        for _ in range(2):
            wires.enter_context(connected(port)).sendall(b"POST ")
        answers = []

        def full():
            answers[:] = [post(port, contact("W-many"))]
            return answers[0].status not in (200, 202)

        servers.until(full, "both connections are open")
        assert_problem(answers[0], 429)
        assert int(answers[0].headers["retry-after"]) > 0
        wires.close()
        servers.until(lambda: send(port, "GET", "/healthz").status == 200, "both connections are closed")


@pytest.mark.slow
def test_connections_too_many_take_no_place_of_the_others(module_database, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "SURPLUS_SECONDS", 600.0)
    with running(module_database, tmp_path, max_connections=2) as port, ExitStack() as stack:
        first = [connected(port) for _ in range(2)]
        for _ in range(5):
            stack.enter_context(connected(port))
        for wire in first:
            wire.close()
        servers.until(lambda: send(port, "GET", "/healthz").status == 200, "both places are free")


def test_empty_lines_after_a_request_do_not_hold_a_connection(module_database, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol.Protocol, "connection_made", quick_to_close(protocol.Protocol.connection_made))
    whole = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with running(module_database, tmp_path) as port, connected(port) as wire:
        wire.sendall(whole)
        assert b"200 OK" in wire.recv(65536)
        wire.sendall(b"\r\n")
        assert read_to_its_end(wire) == b""
    monkeypatch.undo()
    with running(module_database, tmp_path) as port, connected(port) as wire:
        wire.sendall(whole + whole[:9])
        assert b"200 OK" in wire.recv(65536)
        wire.sendall(whole[9:])
        assert b"200 OK" in wire.recv(65536), "a request that has begun is waited for"


def quick_to_close(connection_made):
    def made(self, transport):
        self.timeout_keep_alive = 1.0
        connection_made(self, transport)

    return made


def test_who_reads_nothing_does_not_hold_a_connection(module_database, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.5)
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
    with running(module_database, tmp_path) as port, socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.settimeout(30)
        wire.connect(("127.0.0.1", port))
        cut_off = False
        while not cut_off:
            try:
                wire.sendall(asked * 50)
            except ConnectionError:
                cut_off = True


def read_to_its_end(wire):
    received = b""
    while piece := wire.recv(65536):
        received += piece
    return received


def test_of_silent_connections_too_many_only_the_latest_are_kept(module_database, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_SURPLUS", 3)
    monkeypatch.setattr(protocol, "SURPLUS_SECONDS", 600.0)
    with running(module_database, tmp_path, max_connections=2) as port, ExitStack() as stack:
        wires = [stack.enter_context(connected(port)) for _ in range(20)]
        for wire in wires[2:17]:
            assert wire.recv(1) == b"", "it is closed"
        answer = post(port, contact("W-many"))
        assert_problem(answer, 429)
        for wire in (*wires[:2], *wires[-2:]):
            wire.setblocking(False)
            with pytest.raises(BlockingIOError):
                wire.recv(1)


def test_more_connections_than_there_may_be_files_refuse_the_start(module_database, tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    with (
        pytest.raises(StartError, match="901 connections need 1,025 open files, and this process may have 1,024"),
        running(module_database, tmp_path, max_connections=901),
    ):
        pass


def test_trailers_do_not_reach_the_headers(port):
    body = contact("W-trailers")
    (answer,) = answers_in(raw(port, chunked_head(body), in_one_chunk(body, b"X-GHL-Signature: AAAA\r\n")))
    assert answer.status in (200, 202)


@pytest.mark.parametrize("trailer", [b"a: b\r\n" * 100_000, b"a: " + b"b" * 600_000])
def test_trailers_without_end_are_refused(port, trailer):
    received = raw(port, chunked_head(b""), b"1\r\nx\r\n0\r\n", *[trailer] * 20)
    assert answers_in(received)[0].status == 431


def test_many_small_headers_are_refused(port):
    head = request("POST", "/webhooks/gohighlevel")[:-2].replace(b"Length: 0", b"Length: 5")
    (answer,) = answers_in(raw(port, head + b"a: b\r\n" * 1000 + b"\r\n"))
    assert_problem(answer, 431)


def test_a_large_body_in_one_chunk_is_no_trailer(module_database, tmp_path):
    body = contact("W-one-chunk", text="y" * 2_000_000)
    size, rest = in_one_chunk(body)[:8], in_one_chunk(body)[8:]
    with running(module_database, tmp_path, max_body=3_000_000) as port:
        (answer,) = answers_in(raw(port, chunked_head(body), size, rest))
    assert answer.status in (200, 202)


@pytest.mark.parametrize("protocol_", ["h2c", "websocket", "TLS/1.0, h2c"])
@pytest.mark.parametrize("apart", [False, True])
def test_an_upgrade_is_ignored(port, protocol_, apart):
    body = contact("W-upgrade")
    asked = request("POST", "/webhooks/gohighlevel", {**signed(body), "Upgrade": protocol_}, body)
    first = asked.replace(b"Connection: close", b"Connection: Upgrade")
    cut = len(first) - 5 if apart else len(first)
    answers = answers_in(raw(port, first[:cut], first[cut:] + asked))
    assert all(each.status in (200, 202) for each in answers)
    assert len(answers) == 2


def test_a_thousand_upgrades_at_once_are_ignored(port):
    wish = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    answers = answers_in(raw(port, wish * 1500 + request("GET", "/healthz")))
    assert [each.status for each in answers] == [200] * 1501


@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate,chunked"])
def test_an_unknown_transfer_coding_is_not_implemented(port, coding):
    body = contact("W-coding")
    head = chunked_head(body).replace(b"chunked", coding.encode())
    (answer,) = answers_in(raw(port, head, in_one_chunk(body)))
    assert answer.status == 501
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["reason"] == "unknown-transfer-coding"
