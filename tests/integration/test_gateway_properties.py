"""Whatever arrives: no error is ours, and every error is a problem."""

import json
from collections import Counter
from itertools import pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.gateways import answers_in, assert_problem, chunked_head, post, raw, request, signed


def calm_statuses(received):
    """Nothing that was received is an error of ours, and every error is a problem."""
    assert b"Traceback" not in received
    answers = answers_in(received)
    for answer in answers:
        assert answer.status in (200, 202) or 400 <= answer.status < 500
        if answer.status >= 400:
            assert_problem(answer)
    return [answer.status for answer in answers]


patient = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
SOON = 0.06  # seconds: what is not answered by then waits for more
text = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=30)
token = st.text("abcdefghijklmnopqrstuvwxyz-ABCXYZ0123_", min_size=1, max_size=20)
json_values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def test_arbitrary_bytes_meet_no_error_of_ours(port):
    seen = Counter()

    @patient
    @given(st.binary(max_size=300))
    @example(b"\r\n\r\n")
    @example(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
    @example(b"GET * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    @example(b"GET http://[ HTTP/1.1\r\n\r\n")
    @example(b"GET /\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    @example(b"GET /%ff%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    @example(b"GET / HTTP/9.9\r\nHost: a\r\n\r\n")
    @example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    @example(b"POST /webhooks/standard/\xff HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    def send_bytes(data):
        seen.update(calm_statuses(raw(port, data, timeout=SOON)))

    send_bytes()
    assert seen[400] > 20


METHODS = ["POST", "GET", "PUT", "HEAD", "DELETE", "PROPFIND", "TRACE", "M-SEARCH"]
PATHS = ["gohighlevel", "standard/acme", "standard/é", "", "?a=b", "gohighlevel?x", "%", "a/../b"]
HEADERS = ["X-GHL-Signature", "webhook-id", "webhook-timestamp", "webhook-signature", "Content-Type", "Expect"]
HEADERS += ["Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Host", "Cookie"]


def test_arbitrary_requests_meet_no_error_of_ours(port):
    seen = Counter()

    @patient
    @given(
        method=st.sampled_from(METHODS) | token,
        path=st.sampled_from(PATHS) | text,
        names=st.lists(st.sampled_from(HEADERS) | token, max_size=6),
        values=st.lists(text | st.sampled_from(["100-continue", "websocket"]), min_size=6, max_size=6),
        body=st.binary(max_size=200),
        cuts=st.lists(st.integers(0, 600), max_size=4),
    )
    def send_request(method, path, names, values, body, cuts):
        lines = [f"{method} /webhooks/{path} HTTP/1.1", *map(": ".join, zip(names, values, strict=False))]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        whole = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        places = [0, *sorted(cuts), len(whole)]
        received = raw(port, *[whole[a:b] for a, b in pairwise(places)], timeout=SOON)
        assert b"HTTP/1.1 5" not in received
        if method != "HEAD":  # its answer has a length and no body
            seen.update(calm_statuses(received))

    send_request()
    assert seen[400] + seen[401] + seen[404] + seen[405] > 50


def test_arbitrary_signed_bodies_and_chunks_meet_no_error_of_ours(port):
    seen = Counter()

    @patient
    @given(body=st.binary(max_size=300), sizes=st.lists(st.binary(max_size=5), max_size=5))
    def send_body(body, sizes):
        whole = request("POST", "/webhooks/gohighlevel", signed(body), body)
        seen.update(calm_statuses(raw(port, whole)))
        parts = [size + b"\r\n" + body + b"\r\n" for size in sizes]
        seen.update(calm_statuses(raw(port, chunked_head(body), *parts, timeout=SOON)))

    send_body()
    assert seen[400] > 20


@patient
@given(
    st.dictionaries(st.sampled_from(["type", "id", "locationId", "webhookId", "contactId", "appointment"]), json_values)
)
def test_any_signed_object_is_kept_or_refused(port, payload):
    answer = post(port, json.dumps(payload).encode())
    assert answer.status in (200, 202, 400)
    if answer.status == 400:
        assert_problem(answer)
