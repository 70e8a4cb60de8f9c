"""``connect`` as a person runs it, at the stand-in, on a real database."""

import json
import re
import subprocess
import sys
import threading
from urllib.request import urlopen

import pytest

from circuit_script.cli.connect import _code_of
from circuit_script.testing.stand_ins.gohighlevel import running


@pytest.fixture
def app(tmp_path, database):
    with running() as vendor:
        (tmp_path / "app").mkdir()
        (tmp_path / "app" / "__init__.py").write_text("")
        (tmp_path / "circuit.toml").write_text(
            f'[tenants.acme]\ngohighlevel = ["{vendor.location}"]\n'
            f'[connectors.gohighlevel]\nurl = "{vendor.url}"\nclient_id = "{vendor.tokens.client_id}"\n'
        )
        yield App(tmp_path, database, vendor)


class App:
    def __init__(self, folder, database, vendor):
        self.folder = folder
        self.vendor = vendor
        self.env = {
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": database,
            "CIRCUIT_SECRETS_KEY": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
            "CIRCUIT_SECRET_GOHIGHLEVEL_CLIENT_SECRET": vendor.tokens.client_secret,
        }

    def start(self, *words):
        return subprocess.Popen(
            [sys.executable, "-m", "circuit_script.cli", *words], cwd=self.folder, env=self.env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words, given=""):
        process = self.start(*words)
        printed, said = process.communicate(given, timeout=60)
        return process.returncode, printed, said


def test_a_private_token_is_taken_from_standard_input_and_never_shown(app):
    code, printed, said = app.run("connect", "gohighlevel", "--tenant", "acme", "--token-stdin", "--json",
                                  given=app.vendor.token)  # fmt: skip
    assert code == 0, said
    told = json.loads(printed)
    assert (told["ok"], told["account"], told["name"]) == (True, app.vendor.location, "Acme")
    code, listed, _ = app.run("connections", "--json")
    (known,) = json.loads(listed)
    assert (known["tenant"], known["kind"], known["account"]) == ("acme", "private", app.vendor.location)
    assert app.vendor.token not in printed + said + listed
    del app.vendor.tokens.grants[app.vendor.token]
    code, printed, _ = app.run("connect", "gohighlevel", "--tenant", "acme", "--check", "--json")
    assert code == 1
    assert json.loads(printed)["problem"]
    assert app.vendor.token not in printed


def test_by_oauth_the_browser_comes_back_with_a_code(app):
    process = app.start("connect", "gohighlevel", "--tenant", "acme", "--port", "0", "--json", "--wait", "60")
    said = []
    try:
        while not (found := re.search(r"http://\S+chooselocation\S+", "".join(said))):
            line = process.stderr.readline()
            assert line, "".join(said)
            said.append(line)
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        assert b"Connected" in urlopen(found[0], timeout=20).read()
        printed = process.stdout.read()
        rest.join()
        assert process.wait(30) == 0, printed
    finally:
        process.kill()
        for each in (process.stdin, process.stdout, process.stderr):
            each.close()
        process.wait()
    assert json.loads(printed)["kind"] == "oauth"
    assert not any(token in printed for token in app.vendor.tokens.grants)


def test_a_tenant_that_there_is_not_is_refused_before_anything_is_asked(app):
    code, _, said = app.run("connect", "gohighlevel", "--tenant", "nobody", "--check")
    assert code != 0
    assert "nobody" in said
    assert app.vendor.heard == []


@pytest.mark.parametrize("target", ["/", "/callback?code=c&state=other", "/callback?state=s", "/callback?code=c"])
def test_a_redirect_that_is_not_ours_gives_no_code(target):
    assert _code_of(target, "s")[0] is None


def test_a_redirect_with_our_state_gives_its_code():
    assert _code_of("/callback?code=c&state=s", "s")[0] == "c"
