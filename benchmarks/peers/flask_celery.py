"""What the first users have: Flask behind gunicorn, Celery with Redis, psycopg. The same job.

The route verifies the Ed25519 signature over the raw body, drops a webhookId it has seen, and queues the contact; the
task scores it and stores it in the same PostgreSQL. Tuned as its users would: threads for keep-alive, no results kept,
no gossip between workers, one connection per process. Redis keeps nothing on disk, which favours this peer: what it
acknowledged does not survive a crash.

gunicorn loads ``web``, Celery loads ``queue``; both read PEER_DATABASE, PEER_REDIS and PEER_PUBLIC_KEY.
"""

from __future__ import annotations

import base64
import os
from functools import cache
from typing import Any

import flask
import msgspec
import psycopg
import redis
from celery import Celery  # type: ignore[import-untyped]  # Celery has no types
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from benchmarks.scoring import score

SCHEMA = """
DROP SCHEMA IF EXISTS peer CASCADE;
CREATE SCHEMA peer;
CREATE TABLE peer.records (id text PRIMARY KEY, data jsonb NOT NULL);
"""

STORE = """
INSERT INTO peer.records (id, data) VALUES (%s, %s)
ON CONFLICT (id) DO UPDATE SET data = records.data || excluded.data
"""

web = flask.Flask(__name__)
queue = Celery("peer", broker=os.environ.get("PEER_REDIS"))
queue.conf.update(task_ignore_result=True, task_store_errors_even_if_ignored=False, worker_hijack_root_logger=False)


@cache
def _seen() -> redis.Redis:
    return redis.Redis.from_url(os.environ["PEER_REDIS"])


@cache
def _public_key() -> Ed25519PublicKey:
    key = load_der_public_key(base64.b64decode(os.environ["PEER_PUBLIC_KEY"]))
    assert isinstance(key, Ed25519PublicKey)
    return key


@cache
def _database() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["PEER_DATABASE"], autocommit=True, prepare_threshold=0)


@web.get("/ready")
def ready() -> tuple[str, int]:
    return "ready", 200


@web.post("/webhooks/gohighlevel")
def receive() -> tuple[str, int]:
    body = flask.request.get_data()
    try:
        _public_key().verify(base64.b64decode(flask.request.headers.get("x-ghl-signature", "")), body)
        contact = msgspec.json.decode(body)
    except (InvalidSignature, ValueError):
        return "", 401
    if not _seen().set(f"seen:{contact['webhookId']}", 1, nx=True, ex=3600):
        return "", 200
    score_contact.delay(contact)
    return "", 202


@queue.task  # type: ignore[untyped-decorator]  # Celery has no types
def score_contact(contact: dict[str, Any]) -> None:
    scored = contact | score(contact)
    _database().execute(STORE, (contact["id"], msgspec.json.encode(scored).decode()))
