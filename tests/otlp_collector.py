"""A real HTTP server on a loopback port that takes traces as a collector does, and decodes them."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent


class Collector:
    """What speaks OTLP over HTTP, as Axiom, Tempo and the OpenTelemetry Collector do."""

    def __init__(self) -> None:
        self.spans: list[Sent] = []
        self.resources: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.heard: list[str] = []
        self.status = 200
        self.hangs = threading.Event()
        self.hangs.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.hangs.wait(20)
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body), dict(self.headers))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                """Whoever is asked by a handler: it remembers with which trace."""
                collector.heard.append(self.headers.get("traceparent", ""))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        self.headers.append({name.lower(): value for name, value in headers.items()})
        for each in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in each.resource.attributes})
            if self.status == 200:
                self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def named(self, name: str) -> Sent:
        (found,) = [each for each in self.spans if each.name == name]
        return found

    def close(self) -> None:
        self.hangs.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
