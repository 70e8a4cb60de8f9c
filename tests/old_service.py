"""An old service of the worst manners, on a loopback port: each request says by its header how it is answered."""

import gzip
import random
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

LARGE = 4 * 1024 * 1024


@dataclass
class Heard:
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name):
        return [value for each, value in self.headers if each.lower() == name]


@dataclass
class OldService:
    """``heard`` are the requests that came whole, in their order; ``release`` lets go those that hang. Each answer
    takes up to ``slow`` seconds."""

    port: int
    heard: list[Heard] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    slow: float = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/old/hook?token=t1"

    def serve(self, wire):
        with wire, suppress(OSError, ValueError):
            reader = wire.makefile("rb")
            while line := reader.readline().decode("latin-1").strip():
                headers = []
                while head := reader.readline().decode("latin-1").strip():
                    headers.append(tuple(head.split(": ", 1)))
                sizes = [int(value) for name, value in headers if name.lower() == "content-length"]
                body = reader.read(sizes[0]) if sizes else b""
                self.heard.append(Heard(line, headers, body))
                if self.slow:
                    self.release.wait(random.random() * self.slow)
                act = next((value for name, value in headers if name.lower() == "x-act"), "")
                if not self.answer(wire, act):
                    return

    def answer(self, wire, act):
        """Whether the connection stays open."""
        match act:
            case "hang":
                self.release.wait(20)
                wire.sendall(whole(b'{"score": 1}'))
            case "silent":
                pass
            case "half":
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            case "half-of-much":
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + b"x" * 200_000)
            case "much":
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
                for _ in range(LARGE // 65536):
                    wire.sendall(b"y" * 65536)
                return True
            case "pieces":
                wire.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for piece in (b'{"sco', b're":', b" 7}"):
                    wire.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                wire.sendall(b"0\r\n\r\n")
                return True
            case "nonsense":
                wire.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            case "both-lengths":
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            case "odd-coding":
                wire.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
            case "odd-header":
                wire.sendall(whole(b"{}", extra=b"X-Split: a\x01b\r\n"))
            case "odd-status":
                wire.sendall(whole(b"{}", b"700 Odd"))
            case "endless-head":
                wire.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 10_000)
            case "upgrade":
                wire.sendall(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            case "interim":
                wire.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole(b'{"score": 7}'))
                return True
            case "until-closed":
                wire.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"score": 7}')
            case "old-http":
                wire.sendall(whole(b'{"score": 7}').replace(b"HTTP/1.1", b"HTTP/1.0"))
            case "twice":
                wire.sendall(whole(b'{"score": 78}') + whole(b'{"score": 1}'))
                return True
            case "packed":
                extra = (
                    b"Content-Encoding: gzip\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: x-hop\r\nX-Hop: 1\r\n"
                )
                wire.sendall(whole(gzip.compress(b'{"score": 78}'), b"201 Created", extra))
                return True
            case "moved":
                wire.sendall(whole(b"", b"302 Found", b"Location: http://169.254.169.254/latest\r\n"))
                return True
            case "empty":
                wire.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                return True
            case "500" | "404":
                wire.sendall(whole(b"no", act.encode() + b" No"))
                return True
            case _:
                wire.sendall(whole(b'{"score": 78}'))
                return True
        return False


def whole(body, status=b"200 OK", extra=b""):
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (status, len(body), extra) + body


@contextmanager
def old_service(port=0):
    listener = socket.create_server(("127.0.0.1", port), backlog=500)
    service = OldService(listener.getsockname()[1])
    wires = []

    def accept():
        with suppress(OSError):
            while True:
                wire, _ = listener.accept()
                wires.append(wire)
                threading.Thread(target=service.serve, args=(wire,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.release.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for wire in wires:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
        thread.join(5)
