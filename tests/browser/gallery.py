"""What the pictures show: an office that sells memberships, the leads of an hour, and a few things that went wrong."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from tests.browser.studio import Studio, open_studio

TRIGGERS = '''
from circuit_script import CircuitDB, CircuitTrigger, http, llm, log, send_webhook, trigger
from circuit_script.agents.virtual_lpr.trigger import LeadScoring

OFFICE = "{office}"


class Leads(CircuitTrigger):
    @trigger("Contact", ["afterInsert"], batch_size=5, limits={{"llm_calls": 8, "callouts": 20}})
    async def qualify(self, context):
        """Look each lead up, have a model sum it up, and tell the front desk of the good ones."""
        for lead in context.new_records:
            async with context.record(lead):
                name = f"{{lead['firstName']}} {{lead['lastName']}}"
                log.info("looking the lead up", lead=lead["id"], name=name)
                census = (await http.get(f"{{OFFICE}}/census/{{lead['postalCode']}}")).json()
                summary = await llm.complete(f"In one sentence, what does {{name}} want?", max_tokens=60)
                if lead["lastName"] == "Nobody":
                    log.error("the answer had no score", lead=lead["id"], answer=summary)
                    raise ValueError(f"no score for {{name}}")
                score = 40 + census["income"] // 2000
                await CircuitDB.update("Contact", [{{"id": lead["id"], "score": score, "summary": summary}}])
                if score >= 75:
                    await send_webhook("desk", {{"event": "qualified", "lead": lead["id"]}})
                log.info("qualified", lead=lead["id"], score=score)

    @trigger("Contact", ["afterInsert"], batch_size=10)
    async def greet(self, context):
        """Have everybody welcomed once."""
        for lead in context.new_records:
            async with context.record(lead):
                await CircuitDB.update("Contact", [{{"id": lead["id"], "greeted": True}}])
'''
MORE = """
[llm.providers.openai]
url = "{office}/v1"
key_env = ""
"""
WANTED = (
    "Wants a family membership before the summer.", "Asks for a trial week near the office.",
    "Compares prices and has a budget of $60 a month.",
)  # fmt: skip
# The latest stay; what came before them is laid out over the hour, more and less of it.
SPREAD = """
WITH placed AS (
    SELECT id, row_number() OVER (ORDER BY id DESC) - 1.0 AS n, count(*) OVER () AS of FROM circuit.executions
), moved AS (
    SELECT id, interval '3500 seconds' * greatest(n - 8, 0) / of
               + interval '60 seconds' * CASE WHEN n > 12 THEN sin(n / 4) + sin(n / 11) + 1 ELSE 0 END AS by
    FROM placed
)
UPDATE circuit.executions x SET started_at = x.started_at - m.by, ended_at = x.ended_at - m.by
FROM moved m WHERE m.id = x.id
"""


class _Office(BaseHTTPRequestHandler):
    """A census, and a model that takes its time."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(0.02)
        self._say({"income": 30_000 + hash(self.path) % 60_000})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(0.05)
        text = WANTED[len(str(asked["messages"])) % len(WANTED)]
        message = {"role": "assistant", "content": text, "refusal": None}
        self._say({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 412, "completion_tokens": 38, "total_tokens": 450},
        })  # fmt: skip

    def _say(self, said: Any) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def _office() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Office) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


# A candidate that was compared for an hour: some records differ, and some asked what nobody knows.
SHADOW = """
WITH made AS (
    INSERT INTO circuit.releases (content_hash, platform, manifest, version)
    SELECT 'candidate', platform, manifest || '[{"name": "thank_new_leads"}]', 'v1.9.0'
    FROM circuit.releases WHERE id = circuit.live_release()
    RETURNING id
), opened AS (
    INSERT INTO circuit.shadows (release, against, opened_at, by_whom, message, until, promote_below, skipped_sample,
                                 skipped_rate, skipped_size, closed_at, closed_why)
    SELECT id, circuit.live_release(), now() - interval '2 hours', 'ann@example.com', 'gold counts more',
           now() - interval '1 hour', 0.001, 41, 3, 0, now() - interval '1 hour',
           'its time is up, and it was not promoted: 19 of 348 records are not the same (5.46%, allowed 0.10%)'
    FROM made
    RETURNING id
)
INSERT INTO circuit.comparisons (shadow, execution, worker, state, handler, tenant, records, different, incomparable,
                                 live_ms, shadow_ms, live_cost, shadow_cost, live_calls, shadow_calls, differences)
SELECT o.id, e.id, gen_random_uuid(), s.state, h.name, e.tenant, greatest(e.records, 1),
       CASE s.state WHEN 'different' THEN 1 ELSE 0 END,
       CASE s.state WHEN 'incomparable' THEN greatest(e.records, 1) ELSE 0 END,
       20 + s.n % 37, 22 + s.n % 41, 0.0031, 0.0029, 2, 2,
       CASE s.state
           WHEN 'different' THEN jsonb_build_array(
               jsonb_build_array('4711', 'Contact 4711', 'score', 78, 79),
               jsonb_build_array('4711', 'email sales@acme.example', 'subject', 'New: Grace', 'Gold: Grace'),
               jsonb_build_array(NULL, 'answer', 'body.points', jsonb_build_object('gold', 78), 'nothing'))
           WHEN 'incomparable' THEN jsonb_build_array(jsonb_build_array(NULL, 'asked', '', 'not asked',
               'GET https://api.enrich.example/v2/people?email=grace%40example.com&fields=all&source=circuit'))
           ELSE '[]' END
FROM opened o, (SELECT *, row_number() OVER (ORDER BY id DESC) AS n FROM circuit.executions WHERE tenant = 'acme') e
JOIN circuit.handlers h ON h.id = e.handler,
     LATERAL (SELECT e.n, CASE WHEN e.n % 9 = 0 THEN 'different' WHEN e.n % 13 = 0 THEN 'incomparable' ELSE 'same' END
              AS state) s
"""


@contextlib.contextmanager
def open_gallery() -> Iterator[Studio]:
    """The platform, with all of it on show."""
    with _office() as office, open_studio(
        None, triggers=TRIGGERS.format(office=office), more=MORE.format(office=office)
    ) as studio:  # fmt: skip
        studio.people(**{"ann@example.com": {"*": "owner"}, "olga@example.com": {"acme": "operator"}})
        for wave in range(9):
            studio.run(*(studio.contact() for _ in range(20 + 8 * (wave % 3))))
            if wave in (2, 6):
                studio.run(studio.contact(lastName="Nobody"))
        studio.run(*(studio.contact(location="loc-bolt") for _ in range(4)))
        studio.run(
            studio.contact(id="4711", firstName="Grace", lastName="Nobody"), *(studio.contact() for _ in range(3))
        )
        with psycopg.connect(studio.platform.url, autocommit=True) as connection:
            connection.execute(SPREAD)
            connection.execute(SHADOW)
        yield studio
