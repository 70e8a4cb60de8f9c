"""``python -m circuit_script.testing.stand_ins.gohighlevel --port 8765``: a stand-in to try an app with.

It prints one line of JSON when it listens: its address, the location, a token, the app's id and secret, the key with
which it signs webhooks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading

from circuit_script.testing.stand_ins.gohighlevel import LOCATION, LONGEST_START, GoHighLevelStandIn, contract_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="circuit_script.testing.stand_ins.gohighlevel", description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 is any that is free")
    parser.add_argument("--location", default=LOCATION, help="the location's id")
    parser.add_argument("--window", type=float, default=10.0, help="seconds of the rate limit's window")
    parser.add_argument("--webhooks", default="", help="where they go: http://127.0.0.1:8000/webhooks/gohighlevel")
    parser.add_argument("--token", default="", help="a private token that it takes, in place of one that it makes")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--field", action="append", default=[], help="a custom field of contacts: 'Budget=NUMERICAL'")
    given = parser.parse_args()
    vendor = GoHighLevelStandIn(location=given.location, window=given.window, contract=contract_of())
    vendor.webhooks.url = given.webhooks
    vendor.door.latency = given.latency
    for each in given.field:
        name, _, type_ = each.partition("=")
        vendor.world.custom_field(given.location, name, type_ or "TEXT")
    if given.token:
        vendor.tokens.grants[given.token] = vendor.tokens.grants[vendor.token]
    asyncio.run(_serve(vendor, given.port, given.token or vendor.token))


async def _serve(vendor: GoHighLevelStandIn, port: int, token: str) -> None:
    started = threading.Event()
    serving = asyncio.create_task(vendor.serve(port=port, started=started))
    await asyncio.to_thread(started.wait, LONGEST_START)
    if started.is_set():
        told = {
            "url": vendor.url,
            "location": vendor.location,
            "token": token,
            "client_id": vendor.tokens.client_id,
            "client_secret": vendor.tokens.client_secret,
            "test_public_key": vendor.webhooks.public_key,
        }
        print(json.dumps(told), flush=True)
    await serving


if __name__ == "__main__":
    main()
