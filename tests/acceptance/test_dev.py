"""`dev` as its developer uses it: in a terminal, with an editor beside it."""

from __future__ import annotations

import base64
import json
import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from standardwebhooks import Webhook

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, left_behind, running
from tests.acceptance.terminal import CTRL_C, Developer, app_on
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.servers import Server, until

pytestmark = pytest.mark.story

TRIGGERS = """
from circuit_script import CircuitDB, log, trigger

WORD = "first"


@trigger("Contact", ["afterInsert"])
async def greet(context):
    for contact in context.new_records:
        log.info(f"{WORD} greeting", contact=contact["id"])
        await CircuitDB.insert("Greeting", [{"contactId": contact["id"], "word": WORD}])
"""
SLOW = """
import asyncio
from pathlib import Path

from circuit_script import trigger

HERE = Path(__file__).parent


@trigger("Contact", ["afterInsert"])
async def wait(context):
    (HERE / "begun").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
"""
GREETED = "SELECT data ->> 'word' FROM circuit.records WHERE object = 'Greeting' ORDER BY created_at DESC LIMIT 1"
STILL = "still running the last good version"


@pytest.fixture
def vendor(chance: random.Random) -> Vendor:
    vendor = make_vendor()
    vendor.random.seed(chance.random())
    return vendor


@pytest.fixture(scope="module")
def shared(embedded_server: Server) -> Iterator[Developer]:
    with app_on(embedded_server, TRIGGERS, public_key=make_vendor().public_key) as made:
        yield made


@pytest.fixture
def developer(shared: Developer) -> Developer:
    """`dev` runs with the first version of the app."""
    if not hasattr(shared, "process") or shared.process.poll() is not None:
        save_first(shared)
        shared.start()
        shared.wait_for("save a file and it runs")
        return shared
    mark = shared.mark()
    if save_first(shared):
        until(
            lambda: any(words in shared.log()[mark:] for words in ("reloaded in", "back to the version")),
            "the first version runs again",
        )
    return shared


def save_first(developer: Developer) -> bool:
    """Save the first version, if there is another."""
    file = developer.folder / "app" / "triggers.py"
    if file.read_text() == TRIGGERS:
        return False
    file.write_text(TRIGGERS)
    return True


def save(developer: Developer, text: str) -> int:
    """Save the app's triggers; where the terminal stood then."""
    mark = developer.mark()
    (developer.folder / "app" / "triggers.py").write_text(text)
    return mark


def keys(folder: Path) -> tuple[Path, Path]:
    return folder / ".circuit" / "dev" / "gohighlevel.key", folder / ".circuit" / "dev" / "standard.secret"


def signed_by(key: Ed25519PrivateKey) -> tuple[dict[str, str], bytes]:
    body = json.dumps({"type": "ContactCreate", "locationId": "loc-A", "id": secrets.token_hex(8)}).encode()
    return {"x-ghl-signature": base64.b64encode(key.sign(body)).decode()}, body


def standard_webhook(secret: str) -> tuple[dict[str, str], bytes]:
    body, id_, moment = (
        b'{"type": "Contact.afterInsert", "data": {"id": "c1"}}',
        secrets.token_hex(8),
        datetime.now(UTC),
    )
    signature = Webhook(secret).sign(id_, moment, body.decode())
    stamp = str(int(moment.timestamp()))
    return {"webhook-id": id_, "webhook-timestamp": stamp, "webhook-signature": signature}, body


def post(port: int, path: str, headers: dict[str, str], body: bytes) -> int:
    address = f"http://127.0.0.1:{port}/webhooks/{path}"
    return httpx.post(address, content=body, headers={"content-type": "application/json", **headers}).status_code


def greeted(developer: Developer, vendor: Vendor) -> str:
    """The word with which the next contact is greeted."""
    send_all(developer.port, contact_stream(vendor, 1))
    developer.wait_settled()
    return str(developer.value(GREETED))


def test_it_says_where_everything_is(developer: Developer) -> None:
    shown = developer.wait_for("save a file and it runs")
    address = f"http://127.0.0.1:{developer.port}"
    for words in (f"{address}/\n", f"{address}/webhooks/gohighlevel", "circuit-script send gohighlevel", "1 handler"):
        assert words in shown


def test_what_is_saved_handles_the_next_event(developer: Developer, vendor: Vendor) -> None:
    assert greeted(developer, vendor) == "first"
    mark = save(developer, TRIGGERS.replace('"first"', '"second"'))
    developer.wait_for("reloaded in", since=mark)
    assert greeted(developer, vendor) == "second"
    assert "info     greet  second greeting" in developer.wait_for("second greeting", since=mark)


def test_a_mistake_is_shown_once_with_its_line_and_the_old_version_goes_on(
    developer: Developer, vendor: Vendor
) -> None:
    broken = TRIGGERS.replace("for contact in", "for contact on")
    mark = save(developer, broken)
    shown = developer.wait_for(STILL, since=mark)
    assert "app/triggers.py:9: SyntaxError" in shown
    assert "for contact on context.new_records:" in shown, "the line itself"
    assert "circuit-script explain" in shown
    assert greeted(developer, vendor) == "first"

    save(developer, f"{broken}\n# saved again, with the same mistake\n")
    save(developer, TRIGGERS.replace("@trigger(", "@triger("))
    developer.wait_for("name 'triger' is not defined", since=mark)
    assert developer.log()[mark:].count("SyntaxError") == 1

    save(developer, TRIGGERS.replace('"first"', '"mended"'))
    developer.wait_for("reloaded in", since=mark)
    assert greeted(developer, vendor) == "mended"


def test_taking_a_mistake_back_is_noticed(developer: Developer) -> None:
    mark = save(developer, TRIGGERS.replace("WORD =", "WORD"))
    developer.wait_for(STILL, since=mark)
    save(developer, TRIGGERS)
    developer.wait_for("back to the version that runs", since=mark)


def test_a_handler_that_fails_is_shown_with_what_it_says(developer: Developer, vendor: Vendor) -> None:
    mark = save(
        developer, TRIGGERS.replace("    for contact", '    raise ValueError("\\x1b[2J no \\x07")\n    for contact')
    )
    developer.wait_for("reloaded in", since=mark)
    send_all(developer.port, contact_stream(vendor, 1))
    shown = developer.wait_for("failed   greet", since=mark)
    assert "ValueError" in shown
    assert "1 failed and tried again later of 1 record" in shown
    assert "\x1b[2J" not in developer.raw(), "a terminal must not obey what a stranger wrote"
    mark = save(developer, TRIGGERS)
    developer.wait_for("reloaded in", since=mark)  # or the next test would take it for its own
    developer.wait_settled()


def test_a_new_file_and_a_new_folder_are_noticed(developer: Developer, vendor: Vendor) -> None:
    mark = save(developer, TRIGGERS.replace('WORD = "first"', "from words.greeting import WORD"))
    developer.wait_for("No module named 'words'", since=mark)
    (developer.folder / "words").mkdir()
    (developer.folder / "words" / "greeting.py").write_text('WORD = "hello"\n')
    developer.wait_for("reloaded in", since=mark)
    assert greeted(developer, vendor) == "hello"
    (developer.folder / "words" / "greeting.py").write_text('WORD = "good day"\n')
    developer.wait_for("reloaded in", since=mark, times=2)
    assert greeted(developer, vendor) == "good day"


def test_wrong_settings_are_shown_and_right_ones_start_the_roles_again(developer: Developer, vendor: Vendor) -> None:
    file = developer.folder / "circuit.toml"
    right, mark, gateway = file.read_text(), developer.mark(), developer.one("gateway").pid
    try:
        file.write_text(right.replace("children = 2", "children = 'many'"))
        shown = developer.wait_for("still running with the settings before", since=mark)
        assert "worker.children" in shown
        assert developer.one("gateway").pid == gateway
        file.write_text(right.replace("children = 2", "children = 1"))
        developer.wait_for("restarted in", since=mark)
        assert developer.one("gateway").pid != gateway
        assert greeted(developer, vendor) == "first"
    finally:
        file.write_text(right)
    developer.wait_for("restarted in", since=mark, times=2)


def test_webhooks_of_the_developer_are_accepted_by_dev_and_refused_by_serve(developer: Developer) -> None:
    own, secret = keys(developer.folder)
    key, stranger = load_pem_private_key(own.read_bytes(), None), Ed25519PrivateKey.generate()
    assert isinstance(key, Ed25519PrivateKey)
    assert {oct(each.stat().st_mode & 0o777) for each in (own, secret)} == {"0o600"}
    signed = [signed_by(each) for each in (key, stranger)]
    standard = standard_webhook(secret.read_text().strip())

    assert [post(developer.port, "gohighlevel", *each) for each in signed] == [202, 401]
    assert post(developer.port, "standard/test", *standard) == 202
    assert developer.stop() == 0
    with running(Platform(developer.folder, developer.port, developer.database)) as served:
        assert post(served.port, "gohighlevel", *signed_by(key)) == 401
        assert post(served.port, "standard/test", *standard) in (401, 404)
        assert served.stop() == 0


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c_leaves_nothing_behind(developer: Developer, vendor: Vendor, times: int) -> None:
    begun = developer.folder / "app" / "begun"
    mark = save(developer, SLOW)
    developer.wait_for("reloaded in", since=mark)
    send_all(developer.port, contact_stream(vendor, 1))
    until(begun.exists, "the handler runs")
    developer.type(CTRL_C)
    developer.wait_for("again to stop at once", since=mark)
    if times == 2:
        developer.type(CTRL_C)
    else:
        (developer.folder / "app" / "go").touch()
    assert developer.wait() == (0 if times == 1 else 130)
    until(lambda: left_behind(developer.folder) == [], "nothing runs any more")
    assert "Traceback" not in developer.log()
    for each in ("begun", "go"):
        (developer.folder / "app" / each).unlink(missing_ok=True)


def test_closing_the_terminal_stops_everything(developer: Developer) -> None:
    developer.hang_up()
    assert developer.wait() == 0
    until(lambda: left_behind(developer.folder) == [], "nothing runs any more")


def test_an_app_that_does_not_import_at_first_is_waited_for(developer: Developer, vendor: Vendor) -> None:
    assert developer.stop() == 0
    save(developer, "import not_there_at_all\n")
    developer.start(wait=False)
    shown = developer.wait_for("waiting for the fix")
    assert "app/triggers.py:1: ModuleNotFoundError" in shown
    assert shown.count("not_there_at_all") == 2, "once in the error, and once as its source line"
    save(developer, TRIGGERS)
    developer.wait_ready()
    assert greeted(developer, vendor) == "first"


def test_a_worker_that_dies_while_the_app_is_broken_waits_for_the_fix(developer: Developer, vendor: Vendor) -> None:
    mark = save(developer, TRIGGERS.replace("WORD =", "WORD"))
    developer.wait_for(STILL, since=mark)
    developer.one("worker").kill()
    developer.wait_for("the worker ended", since=mark)
    until(lambda: not developer.find("worker"), "its successor has read the app")
    save(developer, TRIGGERS.replace('"first"', '"again"'))
    developer.wait_for("running again", since=mark)
    assert greeted(developer, vendor) == "again"
    assert developer.log()[mark:].count("SyntaxError") == 1


def test_without_a_terminal_there_are_no_colours(embedded_server: Server) -> None:
    with app_on(embedded_server, TRIGGERS, public_key=make_vendor().public_key) as developer:
        developer.more["NO_COLOR"] = "1"
        developer.start()
        developer.wait_for("save a file and it runs")
        assert "\x1b[" not in developer.raw()
        assert developer.stop() == 0
