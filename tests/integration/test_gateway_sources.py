"""Every source once through a real gateway: accepted, known again, refused, asked who we are."""

import base64
import http.server
import json
import socket
import threading
import time

import psycopg
import pytest

from circuit_script.db.pool import open_pool
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Loader
from circuit_script.events.sources import open_sources
from tests import gateways, servers
from tests.gateways import answers_in, assert_problem, request, running, send
from tests.signing import HOST, NEW, ORGANIZATION, OTHER, SETTINGS, VENDORS, json_of, mac, outbound
from tests.tokens import AUDIENCE, EMAIL, jwks, token

DEAL = "<sf:Id>006A</sf:Id><sf:Amount>5</sf:Amount>"


class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = jwks("k1")
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def keys_url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def settings(keys_url):
    google = {"audience": AUDIENCE, "service_accounts": EMAIL, "keys_url": keys_url}
    return type(SETTINGS).model_validate({**SETTINGS.model_dump(), "google": google})


@pytest.fixture(scope="module")
def port(module_database, tmp_path_factory, settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateways, "SOURCES", settings)
        with running(module_database, tmp_path_factory.mktemp("app")) as port:
            yield port


def fetch(url, query, *parameters):
    with psycopg.connect(url) as connection:
        return connection.execute(query, parameters).fetchall()


def stored(url, id_):
    """Object, event and record of a delivery's events, and the names of the headers that were kept."""
    events = fetch(url, "SELECT object, event, record FROM circuit.events WHERE delivery = %s ORDER BY ordinal", id_)
    ((headers,),) = fetch(url, "SELECT headers FROM circuit.deliveries WHERE id = %s", id_)
    return events, headers


def deliveries(url):
    return fetch(url, "SELECT count(*) FROM circuit.deliveries")[0][0]


def deliver(port, vendor, secret=NEW, body=None):
    signed = vendor.request(body, at=time.time(), secret=secret)
    headers = {name: value for name, value in signed.headers.items() if name != "host"}
    return send(port, "POST", vendor.path, headers, signed.body, host=HOST)


def id_of(answer):
    return answer.headers.get("delivery-id") or answer.json["id"]


EXPECTED = {
    "standard": (202, "Contact", "afterInsert", "C1"),
    "hubspot": (202, "Contact", "afterUpdate", "65059681032"),
    "twilio": (200, "Message", "afterInsert", "SM1"),
    "vapi": (200, "Call", "afterUpdate", "V1"),
    "resend": (202, "Email", "afterUpdate", "E1"),
    "slack": (200, "Message", "afterInsert", "C1:1708986598.000200"),
    "github": (202, "Issue", "afterInsert", "1"),
    "meta": (200, "Lead", "afterInsert", "L1"),
    "stripe": (202, "Customer", "afterInsert", "cus_1"),
    "linkedin": (200, "Lead", "afterInsert", "urn:li:leadGenFormResponse:1"),
    "hmac": (202, "Contact", "afterInsert", "K1"),
}
BODIES = {
    "twilio": (b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml"),
    "vapi": (b"{}", "application/json"),
    "slack": (b"", "text/plain; charset=utf-8"),
    "meta": (b"EVENT_RECEIVED", "text/plain; charset=utf-8"),
    "linkedin": (b"{}", "application/json"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_delivery_is_taken_once_and_a_forged_one_leaves_nothing(port, module_database, name):
    vendor = VENDORS[name]
    status, *expected = EXPECTED[name]
    first = deliver(port, vendor)
    assert first.status == status
    if name in BODIES:
        assert (first.body, first.headers["content-type"]) == BODIES[name]
    events, headers = stored(module_database, id_of(first))
    assert events == [tuple(expected)]
    assert vendor.signature in headers
    again = deliver(port, vendor)
    assert (again.status, id_of(again)) == (200, id_of(first))
    before = deliveries(module_database)
    assert_problem(deliver(port, vendor, OTHER), 401, "bad-signature")
    assert_problem(send(port, "POST", vendor.path, {}, vendor.body, host=HOST), 401, "missing-signature")
    assert deliveries(module_database) == before


def test_an_outbound_message_is_acknowledged_once_it_is_stored(port, module_database):
    path = f"/webhooks/salesforce/{NEW}"
    first, again = (send(port, "POST", path, {"Content-Type": "text/xml"}, outbound(DEAL)) for _ in range(2))
    assert [each.status for each in (first, again)] == [200, 200]
    assert b"<Ack>true</Ack>" in first.body
    assert first.headers["content-type"].startswith("text/xml")
    assert id_of(first) == id_of(again)
    events, headers = stored(module_database, id_of(first))
    assert events == [("Opportunity", "afterUpdate", "006A")]
    kept = fetch(module_database, "SELECT account, vendor_id FROM circuit.deliveries WHERE id = %s", id_of(first))
    assert kept == [(ORGANIZATION, "04l0")]
    assert NEW not in json.dumps(headers)
    before = deliveries(module_database)
    assert_problem(send(port, "POST", f"/webhooks/salesforce/{OTHER}", {}, outbound(DEAL)), 401, "bad-signature")
    stranger = outbound(DEAL, organization="00D9")
    assert_problem(send(port, "POST", path, {}, stranger), 401, "unknown-account")
    assert_problem(send(port, "POST", path, {}, b"<!DOCTYPE x><x/>"), 400, "not-xml")
    assert_problem(send(port, "POST", "/webhooks/salesforce", {}, outbound(DEAL)), 404, "unknown-source")
    assert deliveries(module_database) == before


def test_an_outbound_message_is_not_acknowledged_while_too_much_waits(database, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(gateways, "SOURCES", settings)
    path = f"/webhooks/salesforce/{NEW}"
    with running(database, tmp_path, max_waiting=1) as port, psycopg.connect(database) as other:
        other.execute("LOCK TABLE circuit.deliveries")
        asked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%take_in%%'"
        wires = []
        try:
            wires.append(posted(port, path, "a"))
            servers.until(lambda: fetch(database, asked) != [], "the first group waits for the lock")
            refused = None
            while refused is None:  # the one that waits behind it may still be on its way
                wires.append(posted(port, path, f"b{len(wires)}"))
                refused = answer_now(wires[-1])
            assert refused.status == 200
            assert b"<Ack>false</Ack>" in refused.body
            assert "delivery-id" not in refused.headers
            other.rollback()
            assert b"<Ack>true</Ack>" in wires[0].recv(65536)
        finally:
            for wire in wires:
                wire.close()
    counted = "SELECT sum(n) FROM circuit.refusals WHERE (source, reason) = ('salesforce', 'overloaded')"
    assert fetch(database, counted)[0][0] == 1


def posted(port, path, ids):
    wire = socket.create_connection(("127.0.0.1", port), 10)
    wire.sendall(request("POST", path, {"Content-Type": "text/xml"}, outbound(DEAL, ids=ids)))
    return wire


def answer_now(wire):
    wire.settimeout(0.3)
    try:
        (answer,) = answers_in(wire.recv(65536))
    except TimeoutError:
        wire.settimeout(10)
        return None
    return answer


NOTIFICATION = {
    "name": "accounts/1/locations/2",
    "notificationType": "NEW_REVIEW",
    "review": "accounts/1/locations/2/reviews/A",
}
PUSH = {
    "message": {"data": base64.b64encode(json_of(NOTIFICATION)).decode(), "messageId": "m-1"},
    "subscription": "projects/p/subscriptions/s",
}


def test_a_push_of_google_is_taken_by_its_token_which_is_kept_nowhere(port, module_database):
    now = int(time.time())
    good = {"Authorization": f"Bearer {token(iat=now, exp=now + 3600)}"}
    first, again = (send(port, "POST", "/webhooks/google", good, json_of(PUSH)) for _ in range(2))
    assert (first.status, again.status) == (202, 200)
    assert first.json == again.json
    events, headers = stored(module_database, id_of(first))
    assert events == [("Review", "afterInsert", "accounts/1/locations/2/reviews/A")]
    assert "authorization" not in headers
    before = deliveries(module_database)
    old = {"Authorization": f"Bearer {token(iat=now - 7200, exp=now - 3600)}"}
    for headers, reason in (
        (old, "timestamp-too-old"),
        ({"Authorization": f"Bearer {token(iat=now, exp=now + 3600, aud='x')}"}, "wrong-claims"),
        ({"Authorization": f"Bearer {token('k1', key='k2', iat=now, exp=now + 3600)}"}, "bad-signature"),
        ({"Authorization": "Bearer x"}, "bad-signature"),
        ({}, "missing-signature"),
    ):
        assert_problem(send(port, "POST", "/webhooks/google", headers, json_of(PUSH)), 401, reason)
    assert deliveries(module_database) == before


def test_questions_are_answered_at_once_and_leave_nothing(port, module_database):
    before = deliveries(module_database)
    code = "890e4665-4dfe-4ab1-b689-ed553bceeed0"
    linkedin = send(port, "GET", f"/webhooks/linkedin?challengeCode={code}")
    assert linkedin.status == 200
    old = SETTINGS.linkedin.secrets[0]
    assert linkedin.json == {"challengeCode": code, "challengeResponse": mac(old, code.encode()).hex()}
    asked = "hub.mode=subscribe&hub.verify_token=a%20word&hub.challenge=115"
    meta = send(port, "GET", f"/webhooks/meta?{asked}")
    assert (meta.status, meta.body) == (200, b"115")
    assert meta.headers["x-content-type-options"] == "nosniff"
    slack = deliver(port, VENDORS["slack"], body=json_of({"type": "url_verification", "challenge": "3eZb"}))
    assert (slack.status, slack.body) == (200, b"3eZb")
    unsigned = deliver(port, VENDORS["slack"], OTHER, json_of({"type": "url_verification", "challenge": "3eZb"}))
    assert_problem(unsigned, 401, "bad-signature")
    assert_problem(send(port, "GET", f"/webhooks/meta?{asked.replace('word', 'w')}"), 401, "wrong-challenge")
    assert_problem(send(port, "GET", "/webhooks/linkedin"), 401, "wrong-challenge")
    assert deliveries(module_database) == before


@pytest.mark.parametrize("name", ["hubspot", "slack", "stripe", "google"])
def test_who_asks_no_questions_is_told_to_post(port, name):
    answer = send(port, "GET", f"/webhooks/{name}")
    assert_problem(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "POST"
    assert send(port, "PUT", "/webhooks/meta").headers["allow"] == "POST, GET"


def test_refused_questions_are_counted(database, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(gateways, "SOURCES", settings)
    with running(database, tmp_path) as port:
        send(port, "GET", "/webhooks/meta?hub.mode=subscribe")
    query = "SELECT sum(n) FROM circuit.refusals WHERE (source, reason) = ('meta', 'wrong-challenge')"
    assert fetch(database, query) == [(1,)]


def test_a_secret_that_was_sent_along_is_kept_nowhere(module_database, tmp_path, monkeypatch):
    settings = type(SETTINGS).model_validate({"vapi": {"secrets": NEW}})
    monkeypatch.setattr(gateways, "SOURCES", settings)
    body = json_of({"message": {"type": "hang", "timestamp": 5, "call": {"id": "V9"}}})
    with running(module_database, tmp_path) as port:
        answer = send(port, "POST", "/webhooks/vapi", {"X-Vapi-Secret": NEW}, body)
    assert answer.status == 200
    whole = fetch(module_database, "SELECT d::text FROM circuit.deliveries d WHERE id = %s", id_of(answer))
    assert NEW not in whole[0][0]


async def test_the_record_of_a_sender_of_its_own_has_the_id_of_its_event(port, module_database):
    body = json_of({"kind": "customer/new", "shop": "shop-2", "data": {"customer": {"id": "K2"}}, "id": "other"})
    id_ = id_of(deliver(port, VENDORS["hmac"], body=body))
    ((arrived, delivery, order),) = fetch(
        module_database, "SELECT id, delivery, ordinal FROM circuit.events WHERE delivery = %s", id_
    )
    row = Queued(arrived, 1, order, 0, 0, 0, delivery, None, None, "default", "Contact", "afterInsert", "K2")
    async with await open_pool(module_database, min_size=1, max_size=1, name="test") as pool:
        items, unreadable = await Loader(pool, open_sources(SETTINGS), queued=False).load([row])
    assert not unreadable
    assert items[0].incoming["id"] == "K2"
    assert items[0].incoming["data"] == {"customer": {"id": "K2"}}
