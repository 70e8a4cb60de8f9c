"""One route became an endpoint, one a trigger, and one is Flask's as before."""

import re

from flask import Flask, request
from pydantic import BaseModel

from circuit_script import CircuitDB, HTTPProblem, endpoint, log, run, trigger
from circuit_script.integrations.flask import governed

app = Flask(__name__)

SUSPICIOUS = re.compile(r"(ignore|forget).{0,40}instructions|[<>{}]", re.IGNORECASE)


class Lead(BaseModel):
    id: str = ""
    email: str = ""
    seats: int = 0
    message: str = ""


class Score(BaseModel):
    id: str
    score: int


# Open to all, as the route was: the page of the shop calls it, and could keep no key. Who calls from a server asks for
# one: leave `auth` out, and make it with `circuit-script keys create`.
@endpoint("score", methods=["POST"], auth="none", limits={"cpu_time": 1, "callouts": 5})
async def score(lead: Lead) -> Score:
    """Was POST /score, is POST /api/score: the body is checked, and described in /openapi.json."""
    if not lead.id:
        raise HTTPProblem(400, error="id is missing")
    if SUSPICIOUS.search(lead.message):
        raise HTTPProblem(400, error="text refused")
    points = 20
    if not lead.email.endswith(("@gmail.com", "@outlook.com")):
        points += 30
    if lead.seats >= 10:
        points += 40
    await CircuitDB.upsert("Contact", {"id": lead.id, "score": points})
    log.info("scored", lead=lead.id, points=points)
    return Score(id=lead.id, score=points)


@trigger("Click", ["afterInsert"])
async def keep_clicks(context):
    """Was POST /hooks/campaign, is /webhooks/standard/shop: signed, stored before it is answered, up to 200 at once."""
    for click in context.new_records:
        if SUSPICIOUS.search(click["campaign"]):
            context.add_error(click, "text refused")
            continue
        async with context.record(click):
            await CircuitDB.upsert("Contact", {"id": click["contact"], "last_campaign": click["campaign"]})


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
    run(CircuitDB.upsert("Reply", {"id": review["id"], "text": text}))
    log.info("replied", review=review["id"])
    return {"reply": text}
