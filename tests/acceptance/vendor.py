"""A vendor that sends signed deliveries and repeats what was not acknowledged, and a receiver of effects."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from circuit_script.cli.demo.vendor import Signed, Vendor
from tests.servers import until

PATH = "/webhooks/gohighlevel"
SENDERS = 12
PATIENCE = 90.0  # for one delivery, however often it must be sent


def make_vendor(seed: int = 7, location: str = "loc-A") -> Vendor:
    return Vendor(seed=seed, location=location, now=datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Sent:
    """One delivery as the vendor knows it."""

    contact: str
    step: int
    signed: Signed

    @property
    def vendor_id(self) -> str:
        found: str = json.loads(self.signed.body)["webhookId"]
        return found


def contact_stream(vendor: Vendor, steps: int, **fields: Any) -> list[Sent]:
    """A contact created (step 0) and then updated, ``steps`` deliveries in all; ``fields`` are custom fields."""
    contact = vendor.contact()
    return [
        Sent(
            contact["id"],
            step,
            vendor.webhook(
                {
                    "type": "ContactUpdate" if step else "ContactCreate",
                    **contact,
                    "customFields": [{"id": name, "value": value} for name, value in {"step": step, **fields}.items()],
                }
            ),
        )
        for step in range(steps)
    ]


@dataclass
class Load:
    """Sends streams of deliveries to a port. Within a stream each waits until the one before is acknowledged. ``rate``
    is how many it begins in a second at most, 0 for as many as it can."""

    port: int
    streams: Sequence[Sequence[Sent]]
    senders: int = SENDERS
    rate: float = 0.0
    acknowledged: list[tuple[Sent, str]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    _faults: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._left = deque(self.streams)
        self._turns, self._began = itertools.count(), time.monotonic()
        self._threads = [threading.Thread(target=self._send_streams) for _ in range(self.senders)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.clear()
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def size(self) -> int:
        return sum(map(len, self.streams))

    def wait_for(self, share: float, seconds: float = PATIENCE) -> None:
        """Until this share of the load is acknowledged."""
        wanted = share * self.size
        until(lambda: bool(self._faults) or len(self.acknowledged) >= wanted, f"{share:.0%} are acknowledged", seconds)
        assert not self._faults, self._faults

    def _send_streams(self) -> None:
        connection = _Connection(self.port)
        try:
            while self._left:
                with contextlib.suppress(IndexError):
                    for sent in self._left.popleft():
                        self._pace()
                        self._send(connection, sent)
        except BaseException as fault:
            self._faults.append(fault)
        finally:
            connection.close()

    def _pace(self) -> None:
        """Wait for the next turn."""
        if self.rate:
            time.sleep(max(0.0, self._began + next(self._turns) / self.rate - time.monotonic()))

    def _send(self, connection: _Connection, sent: Sent) -> None:
        def acknowledged() -> bool:
            status, body = connection.post(sent.signed)
            self.statuses[status] += 1
            assert status in (0, 200, 202, 429, 503), f"{status}: {body[:500]!r}"
            if status in (200, 202):
                self.acknowledged.append((sent, json.loads(body)["id"]))
            return status in (200, 202)

        until(acknowledged, f"{sent.contact} step {sent.step} is acknowledged", PATIENCE)


class _Connection:
    """One keep-alive connection; status 0 when no answer came."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def post(self, signed: Signed) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", PATH, signed.body, dict(signed.headers))
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, b""

    def close(self) -> None:
        self._connection.close()


def send_all(port: int, deliveries: Iterable[Sent]) -> Load:
    """Each delivery on its own, several at once; returns when all are acknowledged."""
    with Load(port, [[each] for each in deliveries]) as load:
        load.wait_for(1.0)
    return load


@dataclass
class Receiver:
    """The other end of the ``webhook`` connector, and of handlers' own calls.

    ``keys`` maps an event's id to the idempotency keys under which its effect came. ``/slow`` never answers.
    """

    port: int = 0
    keys: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    calls: Counter[str] = field(default_factory=Counter)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free loopback port."""
    receiver = Receiver()
    server = _Server(("127.0.0.1", 0), _handler(receiver))
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A sender that was killed in the middle is what these tests are about."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.keys[body["event"]][self.headers["idempotency-key"]] += 1
            self._answer(204)

        def do_GET(self) -> None:
            receiver.calls[self.path] += 1
            if self.path == "/slow":
                receiver.released.wait(60)
            self._answer(204)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    return Handler
