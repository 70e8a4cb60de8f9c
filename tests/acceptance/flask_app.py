"""The Flask app of these tests, as text: it stands in a folder of its own."""

APP = '''
import os
import time
from pathlib import Path

from flask import Blueprint, Flask, abort, flash, jsonify, redirect, request, session, url_for
from flask.views import MethodView

from circuit_script import CircuitDB, current_context, log, run
from circuit_script.endpoints.blocking import HttpRequest, WorkerClient, WorkerUnavailable
from circuit_script.endpoints.protocol import Call
from circuit_script.integrations.flask import governed

HERE = Path(__file__).parent
app = Flask(__name__)
app.secret_key = "of the tests"


@app.route("/plain")
def plain():
    return "plain"


@app.route("/where")
def where():
    return {"governed": current_context() is not None, "pid": os.getpid()}


@app.route("/leads/<int:lead>/café", methods=["GET"])
def lead(lead):
    return {"lead": lead}


@app.route("/folder/")
def folder():
    return "folder"


@app.route("/score", methods=["POST"])
@governed(limits={"callouts": 5}, deadline=20)
def score():
    """Score one lead."""
    lead = request.get_json()
    run(CircuitDB.upsert("Contact", {"id": lead["id"], "score": 90}))
    log.info("scored", lead=lead["id"])
    print("printed", lead["id"])
    return {"id": lead["id"], "governed": current_context() is not None, "tenant": current_context().tenant}


@app.route("/spin", methods=["POST"])
@governed(limits={"cpu_time": 0.5, "wall_time": 5})
def spin():
    run(CircuitDB.upsert("Contact", {"id": "never", "score": 1}))
    while True:
        pass


@app.route("/ungoverned-spin", methods=["POST"])
def ungoverned_spin():
    while True:
        pass


@app.route("/crash", methods=["POST"])
@governed
def crash():
    run(CircuitDB.upsert("Contact", {"id": "never", "score": 1}))
    raise ValueError("a secret of the shop")


@app.route("/refuse", methods=["POST"])
@governed
def refuse():
    run(CircuitDB.upsert("Contact", {"id": "never", "score": 1}))
    abort(404)


@app.errorhandler(404)
def not_found(error):
    return {"error": "not here"}, 404


@app.route("/echo/<path:rest>", methods=["GET", "POST", "PUT"])
@governed
def echo(rest):
    return {
        "method": request.method,
        "rest": rest,
        "url": request.url,
        "args": request.args.to_dict(flat=False),
        "form": request.form.to_dict(),
        "files": {name: len(file.read()) for name, file in request.files.items()},
        "remote": request.remote_addr,
        "length": request.content_length,
        "agent": request.headers.get("User-Agent"),
        "key": request.headers.get("Authorization"),
    }


@app.route("/size", methods=["POST"])
@governed
def size():
    return {"size": len(request.get_data())}


@app.route("/visits")
@governed
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"]}


@app.route("/away")
@governed
def away():
    return redirect(url_for("visits"))


@app.route("/keyed")
@governed(auth="key")
def keyed():
    return {"tenant": current_context().tenant}


@app.route("/stream")
@governed
def stream():
    def words():
        for word in ("one", "two"):
            yield f"data: {word}\\n\\n"

    return app.response_class(words(), content_type="text/event-stream")


@app.route("/wait", methods=["POST"])
@governed(deadline=60, limits={"wall_time": 60})
def wait():
    (HERE / "begun").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return "went"


@app.route("/itself", methods=["POST"])
@governed
def itself():
    try:
        WorkerClient(HERE).call(Call("", "", HttpRequest("POST", "/size", "", (), b"")), 5)
    except WorkerUnavailable as error:
        return {"refused": str(error)}
    return {"refused": None}


class Reviews(MethodView):
    decorators = [governed]

    def post(self):
        return {"governed": current_context() is not None}


reviews = Blueprint("reviews", __name__)
reviews.add_url_rule("/reviews", view_func=Reviews.as_view("all"))


@reviews.before_request
def form_first():
    request.form.get("name")


app.register_blueprint(reviews, url_prefix="/shop")
'''
