"""A gateway in front of an old service, and what a test does at its door."""

import asyncio
from contextlib import contextmanager

import psycopg

from circuit_script.db.pool import open_connection
from circuit_script.events.mirror_moves import move
from tests.gateways import post, running, signed
from tests.old_service import old_service
from tests.servers import until

HANDLER = """
WITH h AS (INSERT INTO circuit.handlers (name) VALUES ('T.score') RETURNING id)
INSERT INTO circuit.routes (object, event, handler) SELECT 'Contact', 'afterInsert', id FROM h
"""


class Door:
    """A gateway with its old service, and its database."""

    def __init__(self, port, old, url):
        self.port, self.old, self.url = port, old, url

    def post(self, body, act="", **headers):
        return post(self.port, body, signed(body) | ({"X-Act": act} if act else {}) | headers)

    def rows(self, query, *values):
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def mirrored(self, vendor_id):
        return self.rows(
            "SELECT m.state, m.old_status, m.old_body, m.why FROM circuit.mirrored m "
            "JOIN circuit.deliveries d ON d.id = m.delivery WHERE d.vendor_id = %s", vendor_id,
        )  # fmt: skip

    def kept(self, vendor_id, times=1):
        until(lambda: len(self.mirrored(vendor_id)) == times, f"{vendor_id} is kept {times} times")
        return self.mirrored(vendor_id)[0]

    def queued(self, vendor_id):
        return self.rows(
            "SELECT count(*) FROM circuit.queue q JOIN circuit.deliveries d ON d.id = q.delivery "
            "WHERE d.vendor_id = %s", vendor_id,
        )[0][0]  # fmt: skip

    def move(self, to):
        async def act():
            connection = await open_connection(self.url, pooler=False, name="test")
            async with connection:
                await move(connection, "gohighlevel", to, by="ada")

        asyncio.run(act())

    def heard(self):
        return [each.body for each in self.old.heard]


def mirroring(folder, url, timeout=5.0):
    folder.mkdir(exist_ok=True)
    (folder / "circuit.toml").write_text(f'[mirror.gohighlevel]\nurl = "{url}"\ntimeout = {timeout}\n')
    return folder


@contextmanager
def opened(database, folder):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(HANDLER)
    with old_service() as old, running(database, mirroring(folder, old.url)) as port:
        yield Door(port, old, database)
