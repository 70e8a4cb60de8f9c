"""A stand-in for a HubSpot account: objects of API v3 by lists, searches and batches, its limits and its tokens.

By the vendor's public documentation. Properties travel as text; what a property is not made for is refused. Batches
answer 207 for what went wrong with single records, by ``objectWriteTraceId`` where an input has one.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.crm.vendor_server import Answer, Heard, VendorServer, Wrong

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Property:
    type: str = "string"
    field: str = "text"
    read_only: bool = False
    unique: bool = False
    options: tuple[str, ...] = ()


TEXT, NUMBER, MOMENT = Property(), Property("number", "number"), Property("datetime", "date")
MADE = Property("datetime", "date", read_only=True)
SYSTEM = {"hs_object_id": Property("number", "number", read_only=True), "hs_createdate": MADE,
          "hs_lastmodifieddate": MADE, "createdate": MADE, "lastmodifieddate": MADE, "hubspot_owner_id": TEXT,
          "hs_internal_thing": TEXT}  # fmt: skip
CUSTOM = {
    "score": NUMBER,
    "reviewed_at": MOMENT,
    "hot": Property("bool", "booleancheckbox"),
    "day": Property("date", "date"),
    "choices": Property("enumeration", "checkbox", options=("a", "b", "c")),
    "circuit_id": Property(unique=True),
}
SCHEMA: dict[str, dict[str, Property]] = {
    "contacts": {
        **SYSTEM, **CUSTOM, "email": Property(unique=True), "firstname": TEXT, "lastname": TEXT, "zip": TEXT,
        "phone": Property("phone_number", "phonenumber"), "company": TEXT, "city": TEXT,
        "lifecyclestage": Property("enumeration", "radio", options=("lead", "customer")),
    },
    "deals": {**SYSTEM, **CUSTOM, "dealname": TEXT, "amount": NUMBER, "pipeline": TEXT, "dealstage": TEXT,
              "closedate": MOMENT},
    "notes": {**SYSTEM, "hs_note_body": TEXT, "hs_timestamp": MOMENT},
    "tasks": {**SYSTEM, "hs_task_subject": TEXT, "hs_task_body": TEXT, "hs_task_status": TEXT, "hs_timestamp": MOMENT},
    "meetings": {**SYSTEM, "hs_meeting_title": TEXT, "hs_meeting_start_time": MOMENT, "hs_meeting_end_time": MOMENT,
                 "hs_timestamp": MOMENT},
}  # fmt: skip
LINKS = {"deals": 3, "tasks": 204, "notes": 202, "meetings": 200}
OPERATORS = {"EQ", "NEQ", "LT", "LTE", "GT", "GTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY",
             "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"}  # fmt: skip


def error(message: str, category: str = "VALIDATION_ERROR", status: int = 400, **more: Any) -> Wrong:
    body = {"status": "error", "message": message, "correlationId": str(uuid4()), "category": category, **more}
    return Wrong(Answer(status, body))


class HubSpotAccount(VendorServer):
    """``records`` by object and id: properties as text. ``per_ten`` and ``per_second`` are its limits; ``delay`` the
    seconds after which a search sees a record that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.schema = {name: dict(each) for name, each in SCHEMA.items()}
        self.records: dict[str, dict[str, dict[str, str]]] = {name: {} for name in self.schema}
        self.links: dict[tuple[str, str], str] = {}
        self.private = f"pat-na1-{secrets.token_hex(12)}"
        self.client_id, self.client_secret, self.refresh = "hub-client", "hub-client-secret", "refresh-of-the-hub"
        self.tokens: dict[str, float] = {}
        self.grants = 0
        self.expires_in = 1800
        self.per_ten, self.per_second = 10_000, 1000
        self.traces = True
        self.hidden: set[str] = set()  # ids that searches do not see yet
        self._heard: deque[float] = deque()
        self._searched: deque[float] = deque()
        self._numbers = itertools.count(101)

    def put(self, object_: str, properties: dict[str, str | None], contact: str | None = None) -> str:
        """A record as if somebody else had made it; its id."""
        made = str(next(self._numbers))
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = {name: value for name, value in properties.items() if value not in (None, "")}
        dates = dict.fromkeys(("createdate", "lastmodifieddate", "hs_createdate", "hs_lastmodifieddate"), now)
        self.records[object_][made] = {"hs_object_id": made, **dates, **row}  # type: ignore[dict-item]
        if contact is not None:
            self.links[object_, made] = contact
        return made

    def expire_tokens(self) -> None:
        self.tokens.clear()

    def may_fail(self, heard: Heard) -> bool:
        return heard.path != "/oauth/v1/token"

    def failing(self, how: str) -> Answer | None:
        if how == "401":
            self.tokens.clear()
            message = "Authentication credentials not found."
            return Answer(401, {"status": "error", "message": message, "category": "INVALID_AUTHENTICATION"})
        if how == "429":
            return self.limited("TEN_SECONDLY_ROLLING")
        return Answer(500, {"status": "error", "message": "internal error", "category": "INTERNAL_ERROR"})

    def limited(self, policy: str) -> Answer:
        body = {
            "status": "error",
            "message": f"You have reached your {policy.lower()} limit.",
            "errorType": "RATE_LIMIT",
            "correlationId": str(uuid4()),
            "policyName": policy,
            "groupName": "publicapi:private-apps",
        }
        return Answer(
            429, body, self.headers() | ({"X-HubSpot-RateLimit-Daily-Remaining": "0"} if policy == "DAILY" else {})
        )

    def headers(self) -> dict[str, str]:
        return {
            "X-HubSpot-RateLimit-Max": str(self.per_ten),
            "X-HubSpot-RateLimit-Remaining": str(max(0, self.per_ten - len(self._heard))),
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
        }

    def answer(self, heard: Heard) -> Answer:
        if heard.path == "/oauth/v1/token":
            return self._grant(heard)
        kind, _, token = heard.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or (token != self.private and self.tokens.get(token, 0) <= time.monotonic()):
            raise error("The OAuth token used to make this call expired.", "EXPIRED_AUTHENTICATION", 401)
        now = time.monotonic()
        search = heard.path.endswith("/search")
        for times, span in ((self._heard, 10.0), (self._searched, 1.0)):
            while times and times[0] <= now - span:
                times.popleft()
        if len(self._heard) >= self.per_ten:
            return self.limited("TEN_SECONDLY_ROLLING")
        if search and len(self._searched) >= self.per_second:
            return self.limited("SECONDLY")
        self._heard.append(now)
        if search:
            self._searched.append(now)
        found = self._route(heard)
        limits = {} if search else self.headers()  # searches have none of these headers
        return Answer(found.status, found.body, {**limits, **found.headers})

    def _grant(self, heard: Heard) -> Answer:
        form = heard.form()
        if form.get("grant_type") != "refresh_token":
            raise error("unsupported grant", "VALIDATION_ERROR")
        if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
            raise error("missing or invalid client secret", "BAD_CLIENT_SECRET")
        if form.get("refresh_token") != self.refresh:
            raise error("missing or invalid refresh token", "BAD_REFRESH_TOKEN")
        made = f"CN{secrets.token_urlsafe(24)}"
        self.grants += 1
        self.tokens[made] = time.monotonic() + self.expires_in
        body = {
            "access_token": made,
            "refresh_token": self.refresh,
            "expires_in": self.expires_in,
            "token_type": "bearer",
        }
        return Answer(200, body)

    def _route(self, heard: Heard) -> Answer:
        parts = heard.path.strip("/").split("/")
        match (heard.method, *parts):
            case ("GET", "crm", "v3", "properties", name):
                listed = [
                    {"name": each, "label": each.replace("_", " ").title(), "type": about.type,
                     "fieldType": about.field, "hidden": False,
                     "options": [{"label": one.upper(), "value": one, "hidden": False} for one in about.options],
                     "hasUniqueValue": about.unique, "modificationMetadata": {"readOnlyValue": about.read_only}}
                    for each, about in self._of(name).items()
                ]  # fmt: skip
                return Answer(200, {"results": listed})
            case ("GET", "crm", "v3", "objects", name):
                return self._list(name, heard)
            case ("POST", "crm", "v3", "objects", name, "search"):
                return self._search(name, heard)
            case ("POST", "crm", "v3", "objects", name, "batch", verb):
                return self._batch(name, verb, heard)
            case ("POST", "crm", "v4", "associations", name, "contacts", "batch", "read"):
                return self._associations(name, heard)
        raise error("Unable to find a matching resource", "OBJECT_NOT_FOUND", 404)

    def _of(self, name: str) -> dict[str, Property]:
        if name not in self.schema:
            raise error(f"Unable to infer object type from: {name}")
        return self.schema[name]

    def _shown(self, name: str, row: dict[str, str], properties: list[str]) -> dict[str, Any]:
        usual = {"hs_object_id", "createdate", "lastmodifieddate", *(properties or ["firstname", "lastname", "email"])}
        shown = {each: row.get(each) for each in sorted(usual & self.schema[name].keys())}
        return {
            "id": row["hs_object_id"],
            "properties": shown,
            "createdAt": row["createdate"],
            "updatedAt": row["lastmodifieddate"],
            "archived": False,
        }

    def _list(self, name: str, heard: Heard) -> Answer:
        self._of(name)
        limit = int(heard.one("limit", "10"))
        if not 1 <= limit <= 100:
            raise error("limit must be 1 to 100")
        after = heard.one("after", "0")
        rows = sorted(self.records[name].values(), key=lambda row: int(row["hs_object_id"]))
        rows = [row for row in rows if int(row["hs_object_id"]) >= int(after)]
        wanted = [each for each in heard.one("properties").split(",") if each]
        body: dict[str, Any] = {"results": [self._shown(name, row, wanted) for row in rows[:limit]]}
        if len(rows) > limit:
            body["paging"] = {"next": {"after": rows[limit]["hs_object_id"], "link": "?"}}
        return Answer(200, body)

    def _search(self, name: str, heard: Heard) -> Answer:
        known = self._of(name)
        if len(heard.body) > 3000:
            raise error("The request body is too long: 3000 characters at most")
        asked = heard.json()
        if set(asked) - {"filterGroups", "sorts", "properties", "limit", "after", "query"}:
            raise error("Invalid input JSON: unknown property")
        groups = asked.get("filterGroups", [])
        filters = [each for group in groups for each in group["filters"]]
        if len(groups) > 5 or any(not 1 <= len(group["filters"]) <= 6 for group in groups) or len(filters) > 18:
            raise error("Too many filters")
        for each in filters:
            self._check_filter(name, known, each)
        sorts = asked.get("sorts", [])
        if len(sorts) > 1 or any(each["propertyName"] not in known for each in sorts):
            raise error("only one sort")
        limit, after = asked.get("limit", 10), int(asked.get("after", 0))
        if not 1 <= limit <= 200 or after + limit > 10_000:
            raise error("limit must be 200 at most, and results 10,000")
        rows = [
            row for key, row in self.records[name].items()
            if key not in self.hidden
            and (not groups or any(all(self._holds(name, row, each) for each in group["filters"]) for group in groups))
        ]  # fmt: skip
        for each in sorts:
            about = known[each["propertyName"]]
            rows.sort(key=lambda row: _value(row.get(each["propertyName"]), about) or 0,
                      reverse=each.get("direction") == "DESCENDING")  # fmt: skip
        part = rows[after : after + limit]
        body: dict[str, Any] = {
            "total": len(rows),
            "results": [self._shown(name, row, asked["properties"]) for row in part],
        }
        if after + limit < len(rows):
            body["paging"] = {"next": {"after": str(after + limit)}}
        return Answer(200, body)

    def _check_filter(self, name: str, known: dict[str, Property], asked: dict[str, Any]) -> None:
        operator, about = asked.get("operator"), known.get(asked["propertyName"])
        if operator not in OPERATORS or set(asked) - {"propertyName", "operator", "value", "values", "highValue"}:
            raise error(f"Invalid operator {operator}")
        if about is None and asked["propertyName"] != "associations.contact":
            raise error(f"Property {asked['propertyName']} does not exist")
        several = operator in ("IN", "NOT_IN")
        if several != ("values" in asked) or (operator == "BETWEEN") != ("highValue" in asked):
            raise error("values go with IN, highValue with BETWEEN")
        said = [*asked.get("values", []), *([asked["value"]] if "value" in asked else [])]
        if any(not isinstance(each, str) for each in said) or len(said) > 100:
            raise error("values are text")
        if about is None:
            return
        for each in said:
            if about.type in ("number", "date", "datetime") and _number(each) is None:
                raise error(f"{each} was not a valid {about.type}")
            if several and about.type == "string" and each != each.lower():
                raise error("values of IN are in small letters")

    def _holds(self, name: str, row: dict[str, str], asked: dict[str, Any]) -> bool:
        operator = asked["operator"]
        if asked["propertyName"] == "associations.contact":
            return self.links.get((name, row["hs_object_id"])) == asked["value"]
        about = self.schema[name][asked["propertyName"]]
        value = _value(row.get(asked["propertyName"]), about)
        if operator == "HAS_PROPERTY":
            return value is not None
        if operator == "NOT_HAS_PROPERTY":
            return value is None
        if value is None:
            return False
        wanted = [_value(each, about) for each in asked.get("values", [])]
        one, high = _value(asked.get("value"), about), _value(asked.get("highValue"), about)
        match operator:
            case "EQ":
                return bool(value == one)
            case "NEQ":
                return bool(value != one)
            case "IN":
                return value in wanted
            case "NOT_IN":
                return value not in wanted
            case "BETWEEN":
                return bool(one <= value <= high)
            case "CONTAINS_TOKEN" | "NOT_CONTAINS_TOKEN":
                found = str(one) in re.findall(r"\w+", str(value))
                return found is (operator == "CONTAINS_TOKEN")
        return bool({"LT": value < one, "LTE": value <= one, "GT": value > one, "GTE": value >= one}[operator])

    def _associations(self, name: str, heard: Heard) -> Answer:
        ids = [each["id"] for each in heard.json()["inputs"]]
        if not 0 < len(ids) <= 1000:
            raise error("1000 inputs at most")
        found = [
            {"from": {"id": each}, "to": [{"toObjectId": int(self.links[name, each]), "associationTypes": []}]}
            for each in ids
            if (name, each) in self.links
        ]
        return Answer(200 if len(found) == len(ids) else 207, {"status": "COMPLETE", "results": found})

    def _batch(self, name: str, verb: str, heard: Heard) -> Answer:
        known, asked = self._of(name), heard.json()
        inputs = asked.get("inputs")
        if not isinstance(inputs, list) or not 0 < len(inputs) <= 100:
            raise error("1 to 100 inputs")
        if verb == "read":
            return self._read(name, asked, inputs)
        if set(asked) != {"inputs"}:
            raise error("Invalid input JSON: unknown property")
        if verb == "archive":
            for each in inputs:
                self.records[name].pop(each["id"], None)
            return Answer(204)
        allowed = {"create": {"properties", "associations"}, "update": {"id", "properties"},
                   "upsert": {"id", "idProperty", "properties"}}  # fmt: skip
        if verb not in allowed:
            raise error("no such batch", "OBJECT_NOT_FOUND", 404)
        keys = [each.get("id") for each in inputs if "id" in each]
        if len(set(keys)) != len(keys):
            raise error("Duplicate IDs found in batch input")
        results, errors = [], []
        before = {each: dict(row) for each, row in self.records[name].items()}
        for each in inputs:
            if set(each) - allowed[verb] - {"objectWriteTraceId"}:
                raise error("Invalid input JSON: unknown property of an input")
            trace = each.get("objectWriteTraceId")
            try:
                made = self._write(name, known, verb, each)
            except Wrong as wrong:
                if trace is None or not self.traces:  # all of a batch, or nothing of it
                    self.records[name] = before
                    raise
                context = {"objectWriteTraceId": [trace]}
                errors.append({**wrong.answer.body, "status": "error", "context": context})
            else:
                shown = self._shown(name, self.records[name][made], list(each["properties"]))
                results.append({**shown, **({"objectWriteTraceId": trace} if trace and self.traces else {})})
        results.reverse()  # in any order
        body: dict[str, Any] = {"status": "COMPLETE", "results": results}
        if errors:
            body |= {"numErrors": len(errors), "errors": errors}
        return Answer(207 if errors else 201 if verb == "create" else 200, body)

    def _read(self, name: str, asked: dict[str, Any], inputs: list[dict[str, str]]) -> Answer:
        unique = asked.get("idProperty")
        found, missing = [], []
        for each in inputs:
            if unique is None:
                if not each["id"].isdecimal():
                    raise error(f"Invalid id {each['id']}")
                row = self.records[name].get(each["id"])
            else:
                if not self.schema[name][unique].unique:
                    raise error(f"{unique} is not unique")
                row = next((one for one in self.records[name].values() if one.get(unique) == each["id"]), None)
            if row is None:
                missing.append(each["id"])
            else:
                found.append(self._shown(name, row, asked["properties"]))
        body: dict[str, Any] = {"status": "COMPLETE", "results": found[::-1]}
        if missing:
            one = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "Could not get some objects"}
            body |= {"numErrors": 1, "errors": [{**one, "context": {"ids": missing}}]}
        return Answer(207 if missing else 200, body)

    def _write(self, name: str, known: dict[str, Property], verb: str, said: dict[str, Any]) -> str:
        values = said["properties"]
        key = said.get("id")
        if verb == "upsert":
            unique = said["idProperty"]
            if unique not in known or not known[unique].unique:
                raise error(f"{unique} is not a unique property")
            values = {**values, unique: key}
            key = next((one for one, row in self.records[name].items() if row.get(unique) == key), None)
        elif verb == "update" and key not in self.records[name]:
            raise error(f"Could not get {name} {key}: it may be deleted or not exist", "OBJECT_NOT_FOUND", 404)
        wrong = []
        for each, value in values.items():
            about = known.get(each)
            if about is None:
                wrong.append(f'Property "{each}" does not exist')
            elif about.read_only:
                wrong.append(f'"{each}" is a read only property')
            elif not isinstance(value, str) or not _fits(value, about):
                wrong.append(f'{value!r} was not valid for "{each}" of type {about.type}')
        if wrong:
            raise error(f"Property values were not valid: {wrong}")
        for each, value in values.items():
            if known[each].unique and value:
                other = next((k for k, row in self.records[name].items() if row.get(each) == value and k != key), None)
                if other is not None:
                    message = (
                        f"Contact already exists. Existing ID: {other}" if each == "email" else f"{other} has that"
                    )
                    raise error(message, "CONFLICT", 409)
        values = {each: _kept(value, known[each]) for each, value in values.items()}
        if key is None:
            if "hs_timestamp" in known and not values.get("hs_timestamp"):
                raise error("Some required properties were not set: hs_timestamp")
            contact = None
            for link in said.get("associations", []):
                kind = link["types"][0]
                if kind != {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": LINKS.get(name)}:
                    raise error("invalid association type")
                contact = link["to"]["id"]
                if contact not in self.records["contacts"]:
                    raise error(f"no contact {contact}", "OBJECT_NOT_FOUND", 404)
            return self.put(name, values, contact)
        row = self.records[name][key]
        for each, value in values.items():
            if value == "":
                row.pop(each, None)
            else:
                row[each] = value
        return str(key)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    try:
        if re.fullmatch(r"-?\d{1,15}", text):
            return EPOCH + timedelta(milliseconds=int(text))
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _fits(value: str, about: Property) -> bool:
    if value == "":
        return True
    match about.type:
        case "number":
            return _number(value) is not None
        case "bool":
            return value in ("true", "false")
        case "datetime":
            return _moment(value) is not None
        case "date":
            return (found := _moment(value)) is not None and (found.hour, found.minute) == (0, 0)
        case "enumeration":
            return all(each in about.options for each in value.split(";"))
    return len(value) <= 65_536


def _kept(value: str, about: Property) -> str:
    found = _moment(value) if value and about.type in ("date", "datetime") else None
    if found is None:
        return value
    text = found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return text[:10] if about.type == "date" else text


def _value(text: str | None, about: Property) -> Any:
    """As it is compared: text without case, moments in milliseconds."""
    if text is None or text == "":
        return None
    if about.type == "number":
        return float(text)
    if about.type in ("date", "datetime"):
        found = _moment(text)
        return None if found is None else (found - EPOCH).total_seconds() * 1000
    return text.lower() if about.type != "enumeration" else text
