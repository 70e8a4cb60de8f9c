"""Holds what the stand-ins hear and say against the vendors' published contracts, where these are at hand.

Slack's is Swagger 2, of 2021: of its requests the names and what is required are looked at, of its answers the schema.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.crm.vendor_server import Answer, Heard

FILES = {
    "twilio": ("twilio/twilio_api_v2010.messages-calls.openapi.json", "https://api.twilio.com"),
    "resend": ("resend/resend.openapi.json", "https://api.resend.com"),
    "vapi": ("vapi/vapi-core-lite.openapi.json", "https://api.vapi.ai"),
    "slack": ("slack/slack-core.swagger2.json", ""),
}
YOUNGER = frozenset(
    {"metadata", "include_all_metadata", "reply_broadcast"}
)  # parameters that came after Slack's contract


class Contract:
    """``violations`` are what did not fit, as text."""

    def __init__(self, vendor: str) -> None:
        self.vendor = vendor
        self.violations: list[str] = []
        self.checked = 0
        self._app: Any = None
        file = _file(vendor)
        if file is None:
            return
        said = json.loads(file.read_text())
        if vendor == "slack":
            self._app = said
            return
        from openapi_core import Config, OpenAPI

        self._app = OpenAPI.from_dict(said, config=Config(spec_validator_cls=None), base_uri=file.as_uri())

    @property
    def there(self) -> bool:
        return self._app is not None

    def check(self, heard: Heard, answer: Answer) -> None:
        if self._app is None:
            return
        self.checked += 1
        (self._slack if self.vendor == "slack" else self._openapi)(heard, answer)

    def _openapi(self, heard: Heard, answer: Answer) -> None:
        from openapi_core.exceptions import OpenAPIError
        from openapi_core.testing import MockRequest, MockResponse
        from werkzeug.datastructures import ImmutableMultiDict

        kind = heard.headers.get("content-type", "").partition(";")[0]
        host = FILES[self.vendor][1]
        request = MockRequest(
            host, heard.method.lower(), heard.path, headers=heard.headers, data=heard.body, content_type=kind
        )
        request.parameters.query = ImmutableMultiDict(
            [(name, each) for name, all_ in heard.query.items() for each in all_]
        )
        try:
            if answer.status < 400:
                self._app.validate_request(request)
                said = MockResponse(answer.raw(), answer.status, content_type="application/json")
                self._app.validate_response(request, said)
        except OpenAPIError as error:
            self.violations.append(f"{heard.method} {heard.path} -> {answer.status}: {_words(error)}")

    def _slack(self, heard: Heard, answer: Answer) -> None:
        import jsonschema

        method = "/" + heard.path.rpartition("/")[2]
        verbs = self._app["paths"].get(method, {})
        # Slack takes POST for every method, and its own client makes use of that.
        found = verbs.get(heard.method.lower()) or (verbs.get("get") if heard.method == "POST" else None)
        if found is None:
            self.violations.append(f"{heard.method} {method}: the contract has no such method")
            return
        if answer.status >= 400 or answer.body is None:
            return
        said = answer.body
        if said["ok"]:
            given = set(heard.json() if heard.body[:1] == b"{" else heard.form()) | set(heard.query)
            known = {each["name"]: each for each in found["parameters"]}
            if unknown := given - known.keys() - YOUNGER:
                self.violations.append(f"{method}: {unknown} are no parameters")
            for name, each in known.items():
                if each.get("required") and each["in"] != "header" and name not in given:
                    self.violations.append(f"{method}: {name} is not there")
        schema = found["responses"]["200" if said["ok"] else "default"]["schema"]
        if not said["ok"]:  # errors came since
            schema = {**schema, "properties": {**schema["properties"], "error": {"type": "string"}}}
        if said["ok"] and method in ("/conversations.history", "/conversations.replies"):
            return  # their schema has no message without an app's whole profile, and wants at least one of them
        validator = jsonschema.Draft4Validator({**schema, "definitions": self._app["definitions"]})
        self.violations += [f"{method}: {error.message[:300]}" for error in validator.iter_errors(said)]


def _file(vendor: str) -> Path | None:
    root = os.environ.get("CIRCUIT_SHARED")
    file = Path(root or "/nowhere", "specs", FILES[vendor][0])
    return file if file.is_file() else None


def _words(error: BaseException) -> str:
    said = [f"{type(error).__name__}: {error}"]
    cause = error.__cause__
    while cause is not None:
        said.append(str(cause)[:400])
        said += [str(each)[:200] for each in getattr(cause, "schema_errors", ())][:5]
        cause = cause.__cause__
    return "; ".join(said)
