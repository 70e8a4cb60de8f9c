"""Holds the stand-in's traffic against the vendor's published contract (OpenAPI 3.0), where that is at hand.

``SLIPS`` are the places where the contract contradicts the vendor's own documentation or what it really answers; each
is mended in the copy that is held in memory, with its reason. ``UNSAID`` are answers that the contract leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

APPS = ("contacts", "opportunities", "conversations", "calendars", "locations", "oauth")
HOST = "https://services.leadconnectorhq.com"
ANY: dict[str, Any] = {}

# (app, where in it, what stands there instead, why)
SLIPS: tuple[tuple[str, tuple[str, ...], Any, str], ...] = (
    ("contacts", ("components", "schemas", "CustomFieldSchema", "properties", "value"), ANY,
     "a custom field's value is said to be text, but numbers, lists and files come as such, in its webhooks too"),
    ("contacts", ("components", "schemas", "NumericField", "properties", "field_value"), ANY,
     "a number is said to be an object; the example beside it is a number"),
    ("contacts", ("components", "schemas", "CreateContactDto", "properties", "dateOfBirth"), ANY,
     "a date is said to be an object; the example beside it is text"),
    ("contacts", ("components", "schemas", "UpdateContactDto", "properties", "dateOfBirth"), ANY, "as above"),
    ("contacts", ("components", "schemas", "UpsertContactDto", "properties", "dateOfBirth"), ANY, "as above"),
    ("opportunities", ("components", "schemas", "CustomFieldResponseSchema", "properties", "fieldValue"), ANY,
     "the schema of the value is broken: a description alone, where a type should be"),
    ("opportunities", ("components", "schemas", "PipelinesResponseSchema", "properties", "stages"), ANY,
     "stages are said to be lists of lists; its documentation shows objects"),
    ("conversations", ("components", "schemas", "SendMessageBodyDto", "required"), ["type", "contactId"],
     "subType and status are said to be required (and subType an object), for a message that is only now sent"),
    ("conversations", ("components", "schemas", "SendMessageResponseDto", "required"), ["conversationId", "messageId"],
     "as above: the status of what was only now sent"),
    ("locations", ("components", "schemas", "LocationTaskListSuccessfulResponseDto", "properties", "tasks"), ANY,
     "tasks are said to be lists of lists; its documentation shows objects"),
    *(("calendars", ("components", "schemas", "CalendarEventDTO", "properties", name), ANY,
       "a moment is said to be an object; its example is text")
      for name in ("startTime", "endTime", "dateAdded", "dateUpdated")),
    ("oauth", ("paths", "/oauth/token", "post", "responses", "400"), {"description": "OAuth's own error"},
     "what OAuth says about a failed grant has other fields than the vendor's errors"),
    ("oauth", ("paths", "/oauth/token", "post", "responses", "401"), {"description": "OAuth's own error"}, "as above"),
)  # fmt: skip

UNSAID = {
    403: "a token without the scope, or of another location",
    404: "there is no such thing",
    429: "too many requests: the contract knows of no limits",
    500: "the vendor failed",
    502: "the vendor failed",
}


@dataclass(slots=True)
class Contract:
    """``folder`` holds the apps' files. What does not fit is kept in ``violations``, as text, and never raised."""

    folder: Path
    violations: list[str] = field(default_factory=list)
    checked: int = 0
    _apps: dict[str, Any] = field(default_factory=dict)

    def check(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]],
        headers: Mapping[str, str],
        body: bytes,
        status: int,
        answered: bytes,
    ) -> None:
        """One request with its answer. A request that was refused is expected to be wrong."""
        from openapi_core.exceptions import OpenAPIError
        from openapi_core.testing import MockRequest, MockResponse
        from werkzeug.datastructures import ImmutableMultiDict

        app = self._app(path)
        if app is None:
            self.violations.append(f"{method} {path}: no app of the contract has it")
            return
        kind = headers.get("content-type", "").partition(";")[0]
        request = MockRequest(HOST, method.lower(), path, headers=dict(headers), data=body, content_type=kind)
        request.parameters.query = ImmutableMultiDict(query)
        self.checked += 1
        try:
            if status < 400:
                app.validate_request(request)
            if status not in UNSAID:
                app.validate_response(request, MockResponse(answered, status, content_type="application/json"))
        except OpenAPIError as error:
            self.violations.append(f"{method} {path} -> {status}: {_words(error)}")

    def _app(self, path: str) -> Any:
        name = path.split("/")[1]
        if name not in APPS:
            return None
        if name not in self._apps:
            from openapi_core import Config, OpenAPI

            file = self.folder / f"{name}.json"
            said = json.loads(file.read_text())
            for app, where, instead, _ in SLIPS:
                if app == name:
                    _replace(said, where, instead)
            config = Config(spec_validator_cls=None)  # its security schemes have keys that OpenAPI does not know
            self._apps[name] = OpenAPI.from_dict(said, config=config, base_uri=file.as_uri())
        return self._apps[name]


def _replace(said: Any, where: tuple[str, ...], instead: Any) -> None:
    for each in where[:-1]:
        said = said[each]
    said[where[-1]] = instead


def _words(error: BaseException) -> str:
    parts = [f"{type(error).__name__}: {error}"]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(parts) < 4:
        inner = getattr(cause, "schema_errors", None)
        parts.append("; ".join(f"{list(each.absolute_path)} {each.message}" for each in inner)[:600] if inner
                     else f"{type(cause).__name__}: {str(cause)[:300]}")  # fmt: skip
        cause = cause.__cause__ or cause.__context__
    return " | ".join(parts)
