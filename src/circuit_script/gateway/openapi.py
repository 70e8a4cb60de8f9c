"""``/openapi.json``: the gateway's own paths and the endpoints of the live release, in one document."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from circuit_script import problems
from circuit_script.endpoints.protocol import News
from circuit_script.problems import MEDIA_TYPE

Document = dict[str, Any]

SCHEME = "key"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key gets the first one's answer for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
PROBLEMS = {
    "401": "The API key is missing, wrong or revoked.",
    "409": "A request with this Idempotency-Key still runs.",
    "413": "The body is too large.",
    "500": "The endpoint failed or crossed a limit. Nothing was committed.",
    "503": "Too much is waiting, or a part of the platform is away. Ask again.",
    "504": "The endpoint did not answer by its deadline. Nothing was committed.",
}
DELIVERY: Document = {
    "summary": "A vendor's webhook",
    "description": "Verified, stored, and then answered. How it is signed is up to the source.",
    "tags": ["webhooks"],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
    "responses": {
        "202": {"description": "It is in the ledger."},
        "200": {"description": "It was in the ledger already."},
        "401": {"description": "Its signature is wrong or missing."},
    },
}


def document(own: Document, sources: Sequence[tuple[str, bool]], news: News | None) -> Document:
    """One OpenAPI 3.1 document. ``own`` is the gateway's, ``sources`` are names of sources and whether they have
    accounts."""
    whole = copy.deepcopy(own)
    whole["paths"].update(_webhooks(sources))
    parts = whole.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = problems.SCHEMA
    parts["responses"] = {f"Problem{status}": _response(text) for status, text in PROBLEMS.items()}
    parts.setdefault("securitySchemes", {})[SCHEME] = problems.KEY
    if news is not None and news.openapi:
        _add(whole, msgspec.json.decode(news.openapi))
    return whole


def _add(whole: Document, theirs: Document) -> None:
    if isinstance(title := theirs.get("info", {}).get("title"), str):
        whole["info"]["title"] = title
    for kind, named in theirs.get("components", {}).items():
        whole["components"].setdefault(kind, {}).update(named)
    whole["tags"] = [*whole.get("tags", []), *theirs.get("tags", [])]
    for path, item in theirs.get("paths", {}).items():
        whole["paths"].setdefault(path, item)
        for method, operation in _operations(item):
            _complete(operation, safe=method in ("get", "head"))


def _operations(item: Document) -> Iterator[tuple[str, Document]]:
    return ((method, operation) for method, operation in item.items() if method in METHODS)


def _complete(operation: Document, *, safe: bool) -> None:
    """What holds for every endpoint: its problems, and its key. One that needs none may be called with one, too."""
    operation.setdefault("security", [{}, {SCHEME: []}])
    responses = operation.setdefault("responses", {})
    for status in PROBLEMS:
        if not (status == "409" and safe):
            responses.setdefault(status, {"$ref": f"#/components/responses/Problem{status}"})
    streams = any(
        "text/event-stream" in answer.get("content", {}) for answer in responses.values() if isinstance(answer, dict)
    )
    named = {each.get("name", "").lower() for each in operation.get("parameters", ())}
    if not safe and not streams and "idempotency-key" not in named:
        operation.setdefault("parameters", []).append(KEY)


def _response(text: str) -> Document:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def _webhooks(sources: Sequence[tuple[str, bool]]) -> Document:
    account = {"name": "account", "in": "path", "required": True, "schema": {"type": "string"}}
    paths: Document = {}
    for name, has_accounts in sources:
        operation = {**DELIVERY, "operationId": f"webhooks_{name}"}
        if has_accounts:
            operation["parameters"] = [account]
        paths[f"/webhooks/{name}" + ("/{account}" if has_accounts else "")] = {"post": operation}
    return paths
