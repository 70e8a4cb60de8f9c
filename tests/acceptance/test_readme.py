"""What README.md says is run here: its commands, its snippet, and the paths that it names."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import psycopg
from standardwebhooks import Webhook

from circuit_script.cli.init import TRIGGERS
from circuit_script.clock import now
from circuit_script.db.embedded import EmbeddedPostgres
from tests import servers
from tests.acceptance.platform import COMMAND, environment, free_port
from tests.servers import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def blocks(pattern: str) -> list[str]:
    return re.findall(pattern, README, re.DOTALL | re.MULTILINE)


def test_the_snippet_is_the_app_that_init_makes() -> None:
    (snippet,) = blocks(r"^```python\n# app/triggers\.py\n(.*?)^```")
    assert snippet.split() == TRIGGERS.split('"""\n', 1)[1].split()


def test_every_make_target_that_it_names_exists() -> None:
    named = sorted(set(re.findall(r"(?:^ +|`)make ([a-z-]+)", README, re.MULTILINE)))
    assert named == ["bench", "demo", "test"]
    for target in named:
        ran = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr


def test_every_path_that_it_names_exists() -> None:
    named = re.findall(r"\((docs/[^)]+|[A-Z]+\.md)\)|`((?:src|tests)/[\w/.]+)`", README)
    named += [("", path) for command in re.findall(r"`\.venv/bin/pytest ([^`]+)`", README) for path in command.split()]
    assert len(named) > 10
    for one, other in named:
        assert (ROOT / (one or other)).exists(), one or other


def test_its_commands_make_an_app_that_scores_a_lead(app_folder: Path) -> None:
    (commands,) = blocks(r"^## Your own app\n\n(.*?)^`serve`")
    lines = [line.strip() for line in commands.strip().splitlines()]
    assert lines == ["circuit-script init acme", "cd acme", "circuit-script serve"]
    port = free_port()
    settings = {
        **environment(None),
        "PATH": f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}",
        "CIRCUIT_GATEWAY__PORT": str(port),
        "CIRCUIT_SOURCES__STANDARD__SECRETS": json.dumps({"acme": SECRET}),
    }
    shell = ["bash", "-ec", "\n".join([*lines[:-1], f"exec {lines[-1]}"])]
    with subprocess.Popen(shell, cwd=app_folder, env=settings, stderr=subprocess.PIPE, text=True) as serving:
        try:
            until(lambda: is_up(port), "the app to be ready", 60)
            send_one_lead(port)
            until(lambda: grade(app_folder / "acme") == "C3", "the lead's score", 30)
        finally:
            serving.terminate()
            said = serving.communicate(timeout=45)[1]
    asyncio.run(servers.remove(app_folder / "acme"))
    assert serving.returncode == 0, said
    assert "ready: " in said


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def send_one_lead(port: int) -> None:
    body = json.dumps({"type": "Contact.afterInsert", "data": {"id": "c1", "email": "ann@example.com"}})
    moment = now()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", moment, body),
    }
    answer = httpx.post(f"http://127.0.0.1:{port}/webhooks/standard/acme", content=body, headers=headers)
    assert answer.status_code == 202


def grade(folder: Path) -> str | None:
    """The lead's grade, as it stands in the CRM."""
    url = asyncio.run(EmbeddedPostgres(folder).start())
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT data ->> 'lpr_grade' FROM circuit.records WHERE id = 'c1'").fetchone()
    return row[0] if row else None


def test_the_demo_exits_0_because_every_number_is_as_it_must_be() -> None:
    ran = subprocess.run(
        [COMMAND, "demo", "--deliveries", "200", "--json"], env=environment(None), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["right"] is True
