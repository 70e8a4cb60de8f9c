"""The pages of an app have the gateway's origin: neither gets what belongs to the other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from circuit_script.access import Role, add_person, grant, one_time_link, redeem
from circuit_script.access.sessions import SignedIn
from tests.doors import answer, endpoint, open_post
from tests.gateways import running, send


async def test_a_handler_gets_no_session_and_an_app_may_have_paths_beside_the_api(
    database: str, app_folder: Path
) -> None:
    async def handle(work: Any, broker: Any) -> None:
        answer(broker, 200, {"path": work.request.path, "headers": dict(work.request.headers)})

    async with open_post(database, app_folder, handle) as post:
        await post.live(endpoint("web", "GET", path=r"/(.*)", kind="web", auth="none"))
        async with post.pool.connection() as connection:
            await add_person(connection, "ann", "test")
            await grant(connection, "ann", "acme", Role.owner, "test")
            found = await redeem(connection, (await one_time_link(connection, "", "ann")).rpartition("=")[2])
        assert isinstance(found, SignedIn)
        sent = {"Cookie": f"theirs=1; circuit_session={found.cookie}", "Authorization": "Bearer csp_x"}

        def ask(port: int, path: str, **headers: str) -> Any:
            return send(port, "GET", path, {**sent, **headers})

        inner = running(database, app_folder)
        port = await asyncio.to_thread(inner.__enter__)
        try:
            for path in ("/page", "/api/v1/leads", "/api/v1/executions/x/y", "/api/v2/logs"):
                seen = await asyncio.to_thread(ask, port, path)
                assert (seen.status, seen.json["path"]) == (200, path), seen.body
                assert seen.json["headers"]["cookie"] == "theirs=1"
                assert found.cookie not in json.dumps(seen.json)
                assert "authorization" not in seen.json["headers"]
            for path in ("/api/v1/logs", "/api/v1/session", f"/api/v1/traces/{found.session.id}"):
                assert (await asyncio.to_thread(ask, port, path)).status == 401
                own = {"Authorization": "", "X-CSRF-Token": found.session.csrf}
                assert (await asyncio.to_thread(ask, port, path, **own)).status in (200, 404)
        finally:
            await asyncio.to_thread(inner.__exit__, None, None, None)
