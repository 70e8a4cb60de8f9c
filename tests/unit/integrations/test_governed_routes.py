"""What the platform makes of governed views when it loads an app: names, places, options, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HEAD = """
from flask import Blueprint, Flask
from flask.views import MethodView
from circuit_script.integrations.flask import governed

app = Flask(__name__)
"""

# In a process of its own: an import leaves its traces in the modules of the process.
LOAD = """
import json, sys
from pathlib import Path
from circuit_script.errors import AppError
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.nursery import WebApp
from circuit_script.execution.web.app import load_web

registry = Registry()
sys.path.insert(0, sys.argv[1])
try:
    load_web(Path(sys.argv[1]), WebApp("app:app", sys.argv[2], 30.0), registry)
except AppError as error:
    print(json.dumps({"detail": error.detail, "cure": error.cure}))
else:
    registry.check()
    print(json.dumps({spec.name: {"auth": spec.endpoint.auth, "deadline": spec.endpoint.deadline, "line": spec.line,
        "file": Path(spec.file).name, "paths": spec.endpoint.paths, "callouts": spec.limits.callouts,
        "methods": spec.endpoint.methods, "share_child": spec.share_child} for spec in registry.specs()}))
"""


def loaded(folder: Path, source: str, auth: str = "none") -> Any:
    (folder / "app.py").write_text(HEAD + source)
    ran = subprocess.run([sys.executable, "-c", LOAD, str(folder), auth], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def line_of(source: str, text: str) -> int:
    return (HEAD + source).splitlines().index(text) + 1


def test_a_governed_view_is_a_handler_with_its_endpoints_name(tmp_path: Path) -> None:
    source = """
@app.route("/score/<int:lead>", methods=["POST"])
@governed
def score(lead): ...

@app.route("/other")
def other(): ...
"""
    found = loaded(tmp_path, source)
    assert sorted(found) == ["score", "web"]
    assert found["score"]["paths"] == ["/score/\\d+", "/score/[^/]+"]
    assert found["score"]["methods"] == ["OPTIONS", "POST"]
    assert (found["score"]["file"], found["score"]["line"]) == (
        "app.py",
        line_of(source, '@app.route("/score/<int:lead>", methods=["POST"])'),
    )


def test_what_is_said_of_a_view_holds_for_it_alone(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
@app.route("/a")
@governed(name="first", limits={"callouts": 5}, deadline=10, auth="key", share_child=True)
def a(): ...

@app.route("/b")
@governed
def b(): ...
""",
    )
    first, second = found["first"], found["b"]
    assert (first["auth"], first["deadline"], first["callouts"], first["share_child"]) == ("key", 10, 5, True)
    assert (second["auth"], second["deadline"], second["callouts"], second["share_child"]) == ("none", 30, 50, False)


def test_where_the_app_asks_for_keys_a_governed_view_does_too_unless_it_says_otherwise(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
@app.route("/closed")
@governed
def closed(): ...

@app.route("/open")
@governed(auth="none")
def opened(): ...
""",
        auth="key",
    )
    assert (found["closed"]["auth"], found["opened"]["auth"], found["web"]["auth"]) == ("key", "none", "key")


def test_views_of_blueprints_and_classes_keep_their_names_apart(tmp_path: Path) -> None:
    source = """
class Reviews(MethodView):
    decorators = [governed]
    def get(self): ...

for name in ("first", "second"):
    blueprint = Blueprint(name, __name__)
    blueprint.add_url_rule("/index", view_func=Reviews.as_view("index"))
    app.register_blueprint(blueprint, url_prefix=f"/{name}")
"""
    found = loaded(tmp_path, source)
    assert {name: each["paths"] for name, each in found.items() if name != "web"} == {
        "first.index": ["/first/index"],
        "second.index": ["/second/index"],
    }
    place = (found["first.index"]["file"], found["first.index"]["line"])
    assert place == ("app.py", line_of(source, "class Reviews(MethodView):"))


def test_another_decorator_may_stand_between_route_and_governed(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
import functools

def logged_in(view):
    @functools.wraps(view)
    def wrapper(*args, **named):
        return view(*args, **named)
    return wrapper

@app.route("/a")
@logged_in
@governed(deadline=7)
def a(): ...
""",
    )
    assert found["a"]["deadline"] == 7


def test_two_views_of_one_name_are_refused(tmp_path: Path) -> None:
    source = """
@app.route("/a")
@governed(name="same")
def a(): ...

@app.route("/b")
@governed(name="same")
def b(): ...
"""
    refused = loaded(tmp_path, source)
    assert "same: another governed view has this name." in refused["detail"]
    assert refused["cure"] == "Give one of them another name."
