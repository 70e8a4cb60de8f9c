"""Census geocoder, ACS, Places and a LinkedIn API on loopback, in one server: strict on what they hear."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit

STATES = {"TX": "48", "CA": "06", "OK": "40", "LA": "22", "NM": "35"}
KEY, TOKEN = "maps-key-4711", "linkedin-token-4711"
CENSUS_KEY = "census-key-4711"
SENTINEL = "-666666666"


class Refuse(Exception):
    """A request that the vendor would not take."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        self.why = why


Raw = tuple[int, str, bytes]  # status, content type, body


class Sources:
    """``heard`` counts requests by source, ``faults`` are what becomes of a source's next ones: a status, a body that
    is answered with 200, or None, which cuts the connection. Answers of the geocoder wait for ``gate``."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.rows: list[list[str]] = []  # of all that the geocoder was asked
        self.searched: list[str] = []
        self.refused: list[str] = []
        self.faults: dict[str, deque[int | bytes | None]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.people: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()  # ids of places
        self.spoil: Callable[[bytes], bytes] = lambda body: body  # what the geocoder says, made otherwise
        self._lock = threading.Lock()
        sources = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                answer = sources._answer(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, kind, raw = answer
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def calls(self) -> int:
        return sum(self.heard.values())

    def fail(self, source: str, *faults: int | bytes | None) -> None:
        self.faults.setdefault(source, deque()).extend(faults)

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Raw | None:
        parts = urlsplit(path)
        source, serve = self._route(method, parts.path)
        with self._lock:
            self.heard[source] += 1
            waiting = self.faults.get(source)
            fault = waiting.popleft() if waiting else ...
        if fault is None:
            return None
        if isinstance(fault, int):
            return fault, "text/html", b"<html>no</html>"
        if isinstance(fault, bytes):
            return 200, "text/plain", fault
        try:
            return serve(parts.path, parts.query, headers, body)
        except Refuse as refuse:
            self.refused.append(refuse.why)
            return refuse.status, "text/plain", refuse.why.encode()

    def _route(self, method: str, path: str) -> tuple[str, Callable[[str, str, dict[str, str], bytes], Raw]]:
        if (method, path) == ("POST", "/geocoder/geographies/addressbatch"):
            return "geocoder", self._geocode
        if method == "GET" and re.fullmatch(r"/data/20\d\d/acs/acs5", path):
            return "acs", self._acs
        if (method, path) == ("POST", "/v1/places:searchText"):
            return "places", self._search
        if method == "GET" and path.startswith("/v1/places/"):
            return "places", self._place
        if (method, path) == ("GET", "/people"):
            return "linkedin", self._person
        return "nothing", self._nothing

    def _nothing(self, path: str, query: str, headers: dict[str, str], body: bytes) -> Raw:
        raise Refuse(404, f"no such path {path}")

    def _geocode(self, path: str, query: str, headers: dict[str, str], body: bytes) -> Raw:
        message = BytesParser(policy=HTTP).parsebytes(
            b"content-type: " + headers.get("content-type", "").encode() + b"\r\n\r\n" + body
        )
        if message.get_content_type() != "multipart/form-data":
            raise Refuse(400, "no multipart")
        given = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        if set(given) != {"addressFile", "benchmark", "vintage"} or not given["addressFile"].get_filename():
            raise Refuse(400, f"fields {sorted(map(str, given))}")
        if given["benchmark"].get_content().strip() != "Public_AR_Current":
            raise Refuse(400, "benchmark")
        raw = given["addressFile"].get_payload(decode=True)
        assert isinstance(raw, bytes)
        rows = [row for row in csv.reader(io.StringIO(raw.decode())) if row]
        if not rows or len(rows) > 10_000 or any(len(row) != 5 for row in rows):
            raise Refuse(400, f"{len(rows)} rows, or not five columns")
        if len({row[0] for row in rows}) != len(rows):
            raise Refuse(400, "an id stands twice")
        with self._lock:
            self.rows += rows
        assert self.gate.wait(30)
        said = io.StringIO()
        out = csv.writer(said, quoting=csv.QUOTE_ALL)
        for row in sorted(rows, key=lambda row: zlib.crc32(row[0].encode())):
            out.writerow(_geocoded(row))
        return 200, "text/csv", self.spoil(said.getvalue().encode())

    def _acs(self, path: str, query: str, headers: dict[str, str], body: bytes) -> Raw:
        asked = parse_qsl(query, keep_blank_values=True)
        names = [value for name, value in asked if name == "get"]
        inside = [value for name, value in asked if name == "in"]
        if len(names) != 1 or ("for", "tract:*") not in asked or inside[1:] != ["county:*"]:
            raise Refuse(400, f"error: unknown/unsupported geography {asked}")
        if ("key", CENSUS_KEY) not in asked and any(name == "key" for name, _ in asked):
            raise Refuse(400, "Invalid Key")
        state, variables = inside[0].removeprefix("state:"), names[0].split(",")
        if state not in STATES.values() or len(variables) > 50:
            raise Refuse(400, "state or variables")
        rows: list[list[str | None]] = [[*variables, "state", "county", "tract"]]
        for number in range(10):
            income = SENTINEL if number == 9 else str(income_of(number))
            rows.append([*[income] * len(variables), state, "001", f"{number:06}"])
        return 200, "application/json", json.dumps(rows).encode()

    def _mapped(self, headers: dict[str, str], prefix: str) -> None:
        if headers.get("x-goog-api-key") != KEY:
            raise Refuse(403, "PERMISSION_DENIED")
        mask = headers.get("x-goog-fieldmask", "").split(",")
        if not all(each.startswith(prefix) for each in mask):
            raise Refuse(400, f"field mask {mask}")

    def _search(self, path: str, query: str, headers: dict[str, str], body: bytes) -> Raw:
        self._mapped(headers, "places.")
        asked = json.loads(body)
        if not asked.get("textQuery") or not 1 <= asked.get("pageSize", 20) <= 20:
            raise Refuse(400, "textQuery")
        with self._lock:
            self.searched.append(asked["textQuery"])
        if "NOBODY" in asked["textQuery"].upper():
            return 200, "application/json", b"{}"
        found = {"places": [_place(f"place_{zlib.crc32(asked['textQuery'].encode())}")]}
        return 200, "application/json", json.dumps(found).encode()

    def _place(self, path: str, query: str, headers: dict[str, str], body: bytes) -> Raw:
        self._mapped(headers, "")
        id_ = path.rpartition("/")[2]
        if id_ in self.gone:
            raise Refuse(404, "NOT_FOUND")
        return 200, "application/json", json.dumps(_place(id_)).encode()

    def _person(self, path: str, query: str, headers: dict[str, str], body: bytes) -> Raw:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refuse(401, "token")
        if not re.fullmatch(r"\d{6}", headers.get("linkedin-version", "")):
            raise Refuse(400, "LinkedIn-Version")
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if set(asked) not in ({"email"}, {"name", "company"}):
            raise Refuse(400, f"parameters {sorted(asked)}")
        person = self.people.get(asked.get("email") or f"{asked['name']}, {asked['company']}")
        if person is None:
            raise Refuse(404, "nobody")
        return 200, "application/json", json.dumps(person).encode()


def tract_of(street: str) -> int:
    """The tract that the geocoder puts a street in."""
    return zlib.crc32(street.encode()) % 10


def income_of(tract: int) -> int:
    return 40_000 + 1000 * tract


def _geocoded(row: list[str]) -> list[str]:
    number, street, city, state, postal_code = row
    said = f"{street}, {city}, {state}, {postal_code}"
    if "NOWHERE" in street:
        return [number, said, "No_Match"]
    if "TWICE" in street:
        return [number, said, "Tie"]
    code = STATES.get(state, "48")
    tract = f"{tract_of(street):06}"
    how = "Non_Exact" if "ABOUT" in street else "Exact"
    return [number, said, "Match", how, said, "-97.1467,31.5493", "12345", "L", code, "001", tract, "1000"]


def _place(id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "displayName": {"text": "Little Stars", "languageCode": "en"},
        "primaryType": "preschool",
        "businessStatus": "OPERATIONAL",
        "location": {"latitude": 31.5, "longitude": -97.1},
    }
