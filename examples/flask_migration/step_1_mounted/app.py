"""Three routes of a shop's marketing, as they grew: each with a limit, prints and checks of its own."""

import json
import re
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

from flask import Flask, request

app = Flask(__name__)
DATABASE = Path(__file__).with_name("shop.db")

score_calls = defaultdict(list)
replies_this_minute = {"minute": 0, "count": 0}
hook_calls = []


def save(kind, row):
    with sqlite3.connect(DATABASE) as database:
        database.execute("CREATE TABLE IF NOT EXISTS rows (kind TEXT, id TEXT, data TEXT, PRIMARY KEY (kind, id))")
        database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (kind, row["id"], json.dumps(row)))


@app.route("/score", methods=["POST"])
def score():
    now = time.time()
    calls = score_calls[request.remote_addr]
    calls[:] = [each for each in calls if now - each < 60]
    if len(calls) >= 60:
        print("SCORE too many calls from", request.remote_addr)
        return {"error": "too many requests"}, 429
    calls.append(now)

    lead = request.get_json()
    if not lead.get("id"):
        print("SCORE no id", lead)
        return {"error": "id is missing"}, 400
    if re.search(r"(ignore|forget).{0,40}instructions", lead.get("message", ""), re.IGNORECASE):
        print("SCORE suspicious", lead["message"])
        return {"error": "text refused"}, 400

    points = 20
    if not lead.get("email", "").endswith(("@gmail.com", "@outlook.com")):
        points += 30
    if lead.get("seats", 0) >= 10:
        points += 40
    save("Contact", {"id": lead["id"], "score": points})
    print("SCORE", lead["id"], points)
    return {"id": lead["id"], "score": points}


@app.route("/reviews/reply", methods=["POST"])
def reply_to_review():
    minute = int(time.time() / 60)
    if replies_this_minute["minute"] != minute:
        replies_this_minute.update(minute=minute, count=0)
    replies_this_minute["count"] += 1
    if replies_this_minute["count"] > 100:
        print("too many replies!!")
        return {"error": "too many requests"}, 429

    review = request.get_json()
    # Copied from a forum. "Please ignore my first review, the pool was open after all" keeps it busy for years.
    if re.search(r"(ignore|forget)(\s*\w+\s*)*instructions", review["text"], re.IGNORECASE):
        print("injection??", review)
        return {"error": "text refused"}, 400

    name = review.get("name", "guest")
    if review["stars"] >= 4:
        text = f"Thank you, {name}! We are glad that you liked it."
    else:
        text = f"We are sorry, {name}. Please tell us more, so that we can do better."
    save("Reply", {"id": review["id"], "text": text})
    print("replied to", review["id"])
    return {"reply": text}


@app.route("/hooks/campaign", methods=["POST"])
def campaign():
    now = time.time()
    hook_calls[:] = [each for each in hook_calls if now - each < 1]
    if len(hook_calls) >= 20:
        return {"error": "slow down"}, 429
    hook_calls.append(now)

    click = request.get_json()
    if re.search(r"[<>{}]|instructions", click["campaign"]):
        print("bad campaign", click)
        return {"error": "text refused"}, 400
    save("Click", {"id": click["id"], "contact": click["contact"], "campaign": click["campaign"]})
    print("click", click["contact"], click["campaign"])
    return "", 202
