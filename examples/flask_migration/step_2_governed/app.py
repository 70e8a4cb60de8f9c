"""The same three routes, governed: no limit, no print and no transaction is made by hand any more."""

import re

from flask import Flask, request

from circuit_script import CircuitDB, log, run
from circuit_script.integrations.flask import governed

app = Flask(__name__)

SUSPICIOUS = re.compile(r"(ignore|forget).{0,40}instructions|[<>{}]", re.IGNORECASE)


def save(kind, row):
    run(CircuitDB.upsert(kind, row))  # leaves when the request has succeeded, and not otherwise


@app.route("/score", methods=["POST"])
@governed(limits={"cpu_time": 1, "callouts": 5})
def score():
    lead = request.get_json()
    if not lead.get("id"):
        return {"error": "id is missing"}, 400
    if SUSPICIOUS.search(lead.get("message", "")):
        log.warning("text refused", lead=lead["id"])
        return {"error": "text refused"}, 400

    points = 20
    if not lead.get("email", "").endswith(("@gmail.com", "@outlook.com")):
        points += 30
    if lead.get("seats", 0) >= 10:
        points += 40
    save("Contact", {"id": lead["id"], "score": points})
    log.info("scored", lead=lead["id"], points=points)
    return {"id": lead["id"], "score": points}


@app.route("/reviews/reply", methods=["POST"])
@governed(deadline=10)
def reply_to_review():
    review = request.get_json()
    if SUSPICIOUS.search(review["text"]):
        log.warning("text refused", review=review["id"])
        return {"error": "text refused"}, 400

    name = review.get("name", "guest")
    if review["stars"] >= 4:
        text = f"Thank you, {name}! We are glad that you liked it."
    else:
        text = f"We are sorry, {name}. Please tell us more, so that we can do better."
    save("Reply", {"id": review["id"], "text": text})
    log.info("replied", review=review["id"])
    return {"reply": text}


@app.route("/hooks/campaign", methods=["POST"])
@governed
def campaign():
    click = request.get_json()
    if SUSPICIOUS.search(click["campaign"]):
        log.warning("text refused", click=click["id"])
        return {"error": "text refused"}, 400
    save("Click", {"id": click["id"], "contact": click["contact"], "campaign": click["campaign"]})
    log.info("clicked", contact=click["contact"], campaign=click["campaign"])
    return "", 202
