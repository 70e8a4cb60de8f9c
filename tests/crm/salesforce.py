"""A stand-in for a Salesforce org: REST queries, sObject Collections, Bulk 2.0 ingest and its three ways to a token.

By the vendor's public reference. It knows the type of each field and takes no other, answers errors in the vendor's
shapes, and counts its requests in ``Sforce-Limit-Info``.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt

from tests.crm.soql import NUMBERS, BadQuery, Field, Parser, Select, moment, ordered
from tests.crm.vendor_server import Answer, Heard, VendorServer, Wrong

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHECK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
VERSION = "62.0"
FIELD_OF_CODE = {"STRING_TOO_LONG", "REQUIRED_FIELD_MISSING", "INVALID_EMAIL_ADDRESS"}


def _text(length: int = 255, **more: Any) -> Field:
    return Field("string", length, **more)


def _made(kind: str, **more: Any) -> Field:
    return Field(kind, createable=False, updateable=False, **more)


SYSTEM = {
    "Id": _made("id"),
    "OwnerId": Field("reference"),
    "CreatedDate": _made("datetime"),
    "LastModifiedDate": _made("datetime"),
    "SystemModstamp": _made("datetime"),
    "IsDeleted": _made("boolean"),
}
CUSTOM = {
    "Score__c": Field("double"),
    "Reviewed_At__c": Field("datetime"),
    "Hot__c": Field("boolean"),
    "Circuit_Id__c": _text(64, external_id=True),
    "Tags__c": Field("multipicklist"),
    "Remarks__c": Field("textarea", 32768, filterable=False, sortable=False),
}
SCHEMA: dict[str, dict[str, Field]] = {
    "Contact": {
        **SYSTEM,
        **CUSTOM,
        "FirstName": _text(40),
        "LastName": _text(80, required=True),
        "Name": _made("string"),
        "Email": Field("email", 80),
        "Phone": Field("phone", 40),
        "MailingStreet": Field("textarea"),
        "MailingCity": _text(40),
        "MailingState": _text(80),
        "MailingPostalCode": _text(20),
        "MailingCountry": _text(80),
        "MailingAddress": _made("address", filterable=False, sortable=False),
        "Birthdate": Field("date"),
        "LeadSource": Field("picklist", 255),
        "Description": Field("textarea", 32000, filterable=False, sortable=False),
        "DoNotCall": Field("boolean"),
        "AccountId": Field("reference"),
    },
    "Opportunity": {
        **SYSTEM,
        "Name": _text(120, required=True),
        "StageName": Field("picklist", required=True),
        "CloseDate": Field("date", required=True),
        "Amount": Field("currency"),
        "Probability": Field("percent"),
        "ContactId": Field("reference"),
        "LeadSource": Field("picklist"),
        "IsClosed": _made("boolean"),
        "IsWon": _made("boolean"),
    },
    "Task": {
        **SYSTEM,
        "Subject": Field("combobox"),
        "Description": Field("textarea", 32000, filterable=False, sortable=False),
        "ActivityDate": Field("date"),
        "Status": Field("picklist"),
        "WhoId": Field("reference"),
        "WhatId": Field("reference"),
        "IsClosed": _made("boolean"),
    },
    "Event": {
        **SYSTEM,
        "Subject": Field("combobox"),
        "StartDateTime": Field("datetime", required=True),
        "EndDateTime": Field("datetime", required=True),
        "Location": _text(),
        "Description": Field("textarea", 32000, filterable=False, sortable=False),
        "WhoId": Field("reference"),
    },
    "Invoice__c": {**SYSTEM, **CUSTOM, "Name": _text(80), "Amount__c": Field("currency")},
}
PREFIXES = {"Contact": "003", "Opportunity": "006", "Task": "00T", "Event": "00U", "Invoice__c": "a00"}


def long_id(short: str) -> str:
    """The 18 characters of an id of 15: each of the last three tells which of five letters are capitals."""
    sums = (sum(1 << n for n, each in enumerate(short[at : at + 5]) if each.isupper()) for at in (0, 5, 10))
    return short + "".join(CHECK[each] for each in sums)


def errors(code: str, message: str, status: int = 400) -> Wrong:
    return Wrong(Answer(status, [{"message": message, "errorCode": code}]))


@dataclass
class Job:
    """One Bulk 2.0 ingest job."""

    id: str
    object: str
    operation: str
    external: str | None
    state: str = "Open"
    data: bytes | None = None
    polls: int = 0
    done: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    unprocessed: list[dict[str, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    message: str | None = None


class SalesforceOrg(VendorServer):
    """``records`` by object and id; ``locked`` ids cannot be written, ``duplicates`` are e-mail addresses that a rule
    finds; ``page`` is the least batch of rows that a query gives; ``jobs_end`` is what Bulk jobs come to."""

    def __init__(self) -> None:
        super().__init__()
        self.schema = {name: dict(fields) for name, fields in SCHEMA.items()}
        self.records: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.schema}
        self.deleted: set[str] = set()
        self.locked: set[str] = set()
        self.duplicates: set[str] = set()
        self.tokens: dict[str, float] = {}
        self.client_id, self.client_secret = "3MVG9.client", "client-secret-of-org"
        self.username, self.password = "robot@acme.example", "pass&word=1"
        self.public_key: Any = None
        self.lives = 7200.0  # seconds of a token
        self.used, self.limit = 0, 100_000
        self.jobs: dict[str, Job] = {}
        self.jobs_end = "JobComplete"
        self.polls_before_end = 1
        self._cursors: dict[str, tuple[Select, list[dict[str, Any]], int]] = {}
        self._numbers = itertools.count(1)
        self._assertions: set[str] = set()

    # --- records

    def new_id(self, name: str) -> str:
        number, digits = next(self._numbers), ""
        for _ in range(9):
            number, rest = divmod(number, 62)
            digits = DIGITS[rest] + digits
        return long_id(f"{PREFIXES[name]}5g0{digits}")

    def put(self, name: str, values: dict[str, Any]) -> str:
        """A record as if somebody else had made it; its id."""
        made = self.new_id(name)
        now = self.stamp()
        row: dict[str, Any] = dict.fromkeys(self.schema[name])
        row |= {each: False for each, about in self.schema[name].items() if about.type == "boolean"}
        row |= {"Id": made, "CreatedDate": now, "LastModifiedDate": now, "SystemModstamp": now, **values}
        if name == "Contact":
            row["Name"] = " ".join(part for part in (row["FirstName"], row["LastName"]) if part)
        self.records[name][made] = row
        return made

    def stamp(self) -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")

    def token(self) -> str:
        made = f"00D5g000000ORG!{secrets.token_urlsafe(24)}"
        self.tokens[made] = time.monotonic() + self.lives
        return made

    def expire_tokens(self) -> None:
        self.tokens.clear()

    # --- answers

    def may_fail(self, heard: Heard) -> bool:
        return heard.path != "/services/oauth2/token"

    def failing(self, how: str) -> Answer | None:
        if how == "401":
            self.expire_tokens()
            return None
        if how == "429":
            body = [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]
            return Answer(403, body, self._usage())
        return Answer(500, [{"message": "An unexpected error occurred.", "errorCode": "UNKNOWN_EXCEPTION"}])

    def _usage(self) -> dict[str, str]:
        return {"Sforce-Limit-Info": f"api-usage={self.used}/{self.limit}"}

    def answer(self, heard: Heard) -> Answer:
        if heard.path == "/services/oauth2/token":
            return self._grant(heard)
        self.used += 1
        kind, _, token = heard.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or self.tokens.get(token, 0) <= time.monotonic():
            raise errors("INVALID_SESSION_ID", "Session expired or invalid", 401)
        match = re.fullmatch(r"/services/data/v(\d+\.0)(/.*)", heard.path)
        if match is None or not 46 <= float(match[1]) <= 66:
            raise errors("NOT_FOUND", "The requested resource does not exist", 404)
        if len(heard.path) + sum(len(n) + len(v[0]) for n, v in heard.query.items()) > 16_000:
            raise Wrong(Answer(414, b"<h1>URI Too Long</h1>", kind="text/html"))
        found = self._route(heard, match[2])
        return Answer(found.status, found.body, {**self._usage(), **found.headers}, found.kind)

    def _route(self, heard: Heard, path: str) -> Answer:
        parts = [unquote(each) for each in path.strip("/").split("/")]
        match (heard.method, *parts):
            case ("GET", "query"):
                return Answer(200, self._query(heard.one("q"), heard.headers.get("sforce-query-options", "")))
            case ("GET", "query", locator):
                return Answer(200, self._more(locator))
            case ("POST", "composite", "batch"):
                return self._batch(heard)
            case ("GET", "sobjects", name, "describe"):
                return Answer(200, self._describe(self._object(name)))
            case ("POST", "sobjects", name):
                return self._create_one(self._object(name), self._json(heard))
            case ("GET", "sobjects", name, key):
                return Answer(200, self._row(self._object(name), self._there(name, key), list(self.schema[name])))
            case ("POST" | "PATCH", "composite", "sobjects"):
                return self._collection(heard)
            case ("DELETE", "composite", "sobjects"):
                ids = heard.one("ids").split(",")
                if len(ids) > 200:
                    raise errors("EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records")
                return Answer(200, [self._save("delete", None, {"id": each}) for each in ids])
            case ("PATCH", "composite", "sobjects", name, external):
                return self._collection(heard, self._object(name), external)
            case ("POST", "composite", "sobjects", name):
                return self._retrieve(self._object(name), self._json(heard))
            case (_, "jobs", "ingest", *rest):
                return self._jobs(heard, rest)
        raise errors("NOT_FOUND", "The requested resource does not exist", 404)

    def _json(self, heard: Heard) -> Any:
        if not heard.headers.get("content-type", "").startswith("application/json"):
            raise errors(
                "UNSUPPORTED_MEDIA_TYPE", "Content-Type header specified in HTTP request is not supported", 415
            )
        try:
            return heard.json()
        except ValueError:
            raise errors("JSON_PARSER_ERROR", "Unexpected character") from None

    def _object(self, name: str) -> str:
        if name not in self.schema:
            raise errors("NOT_FOUND", "The requested resource does not exist", 404)
        return name

    def _there(self, name: str, key: str) -> dict[str, Any]:
        row = self.records[name].get(key)
        if row is None:
            raise errors("NOT_FOUND", "Provided external ID field does not exist or is not accessible", 404)
        return row

    # --- tokens

    def _grant(self, heard: Heard) -> Answer:
        def no(code: str, message: str, status: int = 400) -> Wrong:
            return Wrong(Answer(status, {"error": code, "error_description": message}))

        if heard.headers.get("content-type", "").split(";")[0] != "application/x-www-form-urlencoded":
            raise no("unsupported_grant_type", "grant type not supported")
        form = heard.form()
        kind = form.get("grant_type")
        if kind == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            try:
                said = jwt.decode(
                    form.get("assertion", ""),
                    self.public_key,
                    algorithms=["RS256"],
                    audience=["https://login.salesforce.com", "https://test.salesforce.com", self.url],
                    issuer=self.client_id,
                    options={"require": ["exp", "iss", "sub", "aud"]},
                )
            except jwt.PyJWTError as error:
                raise no("invalid_grant", f"invalid assertion: {error}") from None
            if said["sub"] != self.username or said["exp"] > time.time() + 305:
                raise no("invalid_grant", "user hasn't approved this consumer")
        elif kind in ("client_credentials", "password"):
            if (form.get("client_id"), form.get("client_secret")) != (self.client_id, self.client_secret):
                raise no("invalid_client_id", "client identifier invalid")
            if kind == "password" and (form.get("username"), form.get("password")) != (self.username, self.password):
                raise no("invalid_grant", "authentication failure")
        else:
            raise no("unsupported_grant_type", "grant type not supported")
        body = {
            "access_token": self.token(),
            "instance_url": self.url,
            "id": f"{self.url}/id/00D5g000000ORGAAA/0055g000000USRAAA",
            "token_type": "Bearer",
            "issued_at": str(int(time.time() * 1000)),
            "signature": base64.b64encode(b"of the org").decode(),
        }
        return Answer(200, body)

    # --- reads

    def _row(self, name: str, row: dict[str, Any], fields: list[str]) -> dict[str, Any]:
        url = f"/services/data/v{VERSION}/sobjects/{name}/{row['Id']}"
        return {"attributes": {"type": name, "url": url}, **{each: row.get(each) for each in fields}}

    def _query(self, text: str, options: str) -> dict[str, Any]:
        if len(text) > 100_000:
            raise errors("QUERY_TOO_COMPLICATED", "SOQL statement is too long")
        try:
            select = Parser(text, self.schema).read()
        except BadQuery as error:
            raise errors(error.code, str(error)) from None
        rows = [row for row in self.records[select.object].values() if select.test(row)]
        rows = ordered(rows, select, self.schema[select.object])
        if select.limit is not None:
            rows = rows[: select.limit]
        size = 2000
        if match := re.fullmatch(r"batchSize=(\d+)", options):
            size = min(2000, max(200, int(match[1])))
        locator = f"01g5g{secrets.token_hex(6)}"
        self._cursors[locator] = (select, rows, size)
        return self._page(locator, 0)

    def _more(self, said: str) -> dict[str, Any]:
        locator, _, place = said.rpartition("-")
        if locator not in self._cursors or not place.isdecimal():
            raise errors("INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(locator, int(place))

    def _page(self, locator: str, start: int) -> dict[str, Any]:
        select, rows, size = self._cursors[locator]
        part = rows[start : start + size]
        done = start + size >= len(rows)
        page: dict[str, Any] = {"totalSize": len(rows), "done": done}
        if not done:
            page["nextRecordsUrl"] = f"/services/data/v{VERSION}/query/{locator}-{start + size}"
        return page | {"records": [self._row(select.object, row, select.fields) for row in part]}

    def _batch(self, heard: Heard) -> Answer:
        results = []
        for each in self._json(heard)["batchRequests"]:
            parts = urlsplit(each["url"])
            if each["method"] != "GET" or not re.fullmatch(r"v\d+\.0/query", parts.path):
                raise errors("INVALID_BATCH_REQUEST", "only queries here")
            try:
                found = self._query(parse_qs(parts.query)["q"][0], "")
                results.append({"statusCode": 200, "result": found})
            except Wrong as wrong:
                results.append({"statusCode": wrong.answer.status, "result": wrong.answer.body})
        return Answer(200, {"hasErrors": any(each["statusCode"] >= 400 for each in results), "results": results})

    def _describe(self, name: str) -> dict[str, Any]:
        fields = [
            {
                "name": each,
                "label": each.removesuffix("__c").replace("_", " "),
                "type": about.type,
                "nillable": not about.required,
                "defaultedOnCreate": about.type == "boolean",
                "restrictedPicklist": bool(about.values),
                "picklistValues": [{"value": value, "label": value, "active": True} for value in about.values],
                "length": about.length,
                "filterable": about.filterable,
                "sortable": about.sortable,
                "createable": about.createable,
                "updateable": about.updateable,
                "externalId": about.external_id,
            }
            for each, about in self.schema[name].items()
        ]
        return {"name": name, "queryable": True, "fields": fields}

    def _retrieve(self, name: str, asked: Any) -> Answer:
        ids, fields = asked["ids"], asked["fields"]
        if set(asked) != {"ids", "fields"} or not 0 < len(ids) <= 2000 or not fields:
            raise errors("JSON_PARSER_ERROR", "Malformed request")
        for each in fields:
            if each not in self.schema[name]:
                raise errors("INVALID_FIELD", f"No such column '{each}' on sobject of type {name}")
        for each in ids:
            if not re.fullmatch(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?", each):
                raise errors("MALFORMED_ID", f"malformed id {each}")
        found = (self.records[name].get(each if len(each) == 18 else long_id(each)) for each in ids)
        return Answer(200, [None if row is None else self._row(name, row, fields) for row in found])

    # --- writes

    def _create_one(self, name: str, values: dict[str, Any]) -> Answer:
        self._columns(name, values)
        result = self._save("insert", name, values)
        if not result["success"]:
            codes = [{**each, "errorCode": each.pop("statusCode")} for each in result["errors"]]
            raise Wrong(Answer(400, codes))
        return Answer(201, result)

    def _columns(self, name: str, values: dict[str, Any]) -> None:
        """A column that is not there, or a value of another type, is the whole request's fault."""
        for each, value in values.items():
            if each in ("attributes", "id"):
                continue
            about = self.schema[name].get(each)
            if about is None:
                raise errors("INVALID_FIELD", f"No such column '{each}' on sobject of type {name}")
            good = (
                value is None
                or (about.type == "boolean" and isinstance(value, bool))
                or (about.type in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool))
                or (about.type not in NUMBERS | {"boolean"} and isinstance(value, str))
            )
            if good and about.type == "date" and value is not None:
                good = re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None
            if good and about.type == "datetime" and value is not None:
                good = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:?\d\d)", value) is not None
            if not good:
                message = f"Cannot deserialize instance of {about.type} from value {value!r}"
                raise errors("JSON_PARSER_ERROR", message)

    def _collection(self, heard: Heard, name: str | None = None, external: str | None = None) -> Answer:
        asked = self._json(heard)
        records = asked.get("records")
        if set(asked) - {"allOrNone", "records"} or not isinstance(records, list) or not records:
            raise errors("JSON_PARSER_ERROR", "Malformed request")
        if len(records) > 200:
            raise errors("EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records in this call")
        chunks = 0
        before = None
        for each in records:
            kind = each.get("attributes", {}).get("type")
            if kind not in self.schema or (name is not None and kind != name):
                raise errors("INVALID_TYPE", f"sObject type '{kind}' is not supported.")
            chunks += kind != before
            before = kind
            self._columns(kind, each)
        if chunks > 10:
            raise errors("INVALID_OPERATION", "more than 10 chunks")
        operation = "upsert" if external else "insert" if heard.method == "POST" else "update"
        results = []
        keys = [str(each.get(external or "id", "")).lower() for each in records]
        for each, key in zip(records, keys, strict=True):
            if operation != "insert" and key and keys.count(key) > 1:
                results.append(self._no("DUPLICATE_VALUE", f"Duplicate key specified: {key}"))
            else:
                results.append(self._save(operation, each["attributes"]["type"], each, external))
        return Answer(200, results)

    def _no(self, code: str, message: str, *fields: str) -> dict[str, Any]:
        return {"success": False, "errors": [{"statusCode": code, "message": message, "fields": list(fields)}]}

    def _save(
        self, operation: str, name: str | None, said: dict[str, Any], external: str | None = None
    ) -> dict[str, Any]:
        values = {each: value for each, value in said.items() if each not in ("attributes", "id")}
        values = {each: None if value == "" else value for each, value in values.items()}
        key = said.get("id")
        made = False
        if operation == "insert":
            if key is not None:
                return self._no("INVALID_FIELD_FOR_INSERT_UPDATE", "cannot specify Id in an insert call", "Id")
            made = True
        elif operation == "upsert":
            assert name is not None
            assert external is not None
            if external not in self.schema[name] or not self.schema[name][external].external_id:
                raise errors("INVALID_FIELD", f"{external} is no external id of {name}")
            if not values.get(external):
                return self._no("MISSING_ARGUMENT", f"{external} not specified")
            found = [
                each for each, row in self.records[name].items()
                if str(row.get(external) or "").lower() == str(values[external]).lower()
            ]  # fmt: skip
            made = not found
            key = found[0] if found else None
        if not made:
            if not re.fullmatch(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?", str(key)):
                return self._no("MALFORMED_ID", f"Id: malformed id {key}", "Id")
            key = str(key) if len(str(key)) == 18 else long_id(str(key))
            name = name or next((each for each, rows in self.records.items() if key in rows), None)
            if key in self.deleted:
                return self._no("ENTITY_IS_DELETED", "entity is deleted")
            if name is None or key not in self.records[name]:
                return self._no("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
            if key in self.locked:
                return self._no("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
        assert name is not None
        if operation == "delete":
            del self.records[name][str(key)]
            self.deleted.add(str(key))
            return {"id": key, "success": True, "errors": []}
        if (no := self._refusal(name, values, key, made)) is not None:
            return no
        for each, value in values.items():
            if value is not None and self.schema[name][each].type == "datetime":
                values[each] = moment(value).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
        if made:
            key = self.put(name, values)
        else:
            row = self.records[name][str(key)]
            row |= {**values, "LastModifiedDate": self.stamp(), "SystemModstamp": self.stamp()}
            if name == "Contact":
                row["Name"] = " ".join(part for part in (row["FirstName"], row["LastName"]) if part)
        done = {"id": key, "success": True, "errors": []}
        return done | {"created": made} if operation == "upsert" else done

    def _refusal(self, name: str, values: dict[str, Any], key: str | None, made: bool) -> dict[str, Any] | None:
        fields = self.schema[name]
        missing = [
            each for each, about in fields.items()
            if about.required and (values.get(each) is None if made or each in values else False)
        ]  # fmt: skip
        if missing:
            words = ", ".join(missing)
            return self._no("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{words}]", *missing)
        for each, value in values.items():
            about = fields[each]
            if not (about.createable if made else about.updateable):
                message = f"Unable to create/update fields: {each}."
                return self._no("INVALID_FIELD_FOR_INSERT_UPDATE", message, each)
            if about.type == "boolean" and value is None:
                return self._no("INVALID_TYPE_ON_FIELD_IN_RECORD", f"{each}: value not of required type: null", each)
            if isinstance(value, str) and len(value) > about.length and about.type not in ("datetime", "date"):
                message = f"{each}: data value too large: {value[:20]} (max length={about.length})"
                return self._no("STRING_TOO_LONG", message, each)
            if about.type == "email" and value is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
                return self._no("INVALID_EMAIL_ADDRESS", f"{each}: invalid email address: {value}", each)
            if about.type == "reference" and value is not None and not re.fullmatch(r"\w{15}(\w{3})?", value):
                return self._no("MALFORMED_ID", f"{each}: id value of incorrect type: {value}", each)
            if about.external_id and value is not None:
                other = [i for i, row in self.records[name].items() if row.get(each) == value and i != key]
                if other:
                    message = f"duplicate value found: {each} duplicates value on record with id: {other[0]}"
                    return self._no("DUPLICATE_VALUE", message, each)
        if made and values.get("Email") in self.duplicates:
            return self._no("DUPLICATES_DETECTED", "Use one of these records?")
        return None

    # --- Bulk 2.0

    def _jobs(self, heard: Heard, rest: list[str]) -> Answer:
        if not rest:
            asked = self._json(heard)
            allowed = {"object", "operation", "externalIdFieldName", "contentType", "lineEnding", "columnDelimiter"}
            if heard.method != "POST" or set(asked) - allowed:
                raise errors("INVALIDJOB", "unknown properties")
            if asked.get("lineEnding", "LF") != "LF" or asked.get("columnDelimiter", "COMMA") != "COMMA":
                raise errors("INVALIDJOB", "the stand-in takes LF and commas")
            if asked["operation"] not in ("insert", "update", "upsert", "delete"):
                raise errors("INVALIDJOB", "unknown operation")
            if (asked["operation"] == "upsert") != ("externalIdFieldName" in asked):
                raise errors("INVALIDJOB", "externalIdFieldName goes with upsert")
            job = Job(
                f"7505g{secrets.token_hex(5)}",
                self._object(asked["object"]),
                asked["operation"],
                asked.get("externalIdFieldName"),
            )
            self.jobs[job.id] = job
            return Answer(200, self._job(job))
        job = self.jobs.get(rest[0]) or self._no_job()
        match (heard.method, *rest[1:]):
            case ("PUT", "batches"):
                if not heard.headers.get("content-type", "").startswith("text/csv"):
                    raise errors("INVALIDJOB", "text/csv is wanted", 415)
                if job.state != "Open" or job.data is not None:
                    raise errors("INVALIDJOBSTATE", "only one upload, while it is open")
                job.data = heard.body
                return Answer(201)
            case ("PATCH",):
                job.state = self._json(heard)["state"]
                if job.state == "UploadComplete":
                    self._work(job)
                elif job.state != "Aborted":
                    raise errors("INVALIDJOBSTATE", "unknown state")
                return Answer(200, self._job(job))
            case ("GET",):
                job.polls += 1
                if job.state in ("UploadComplete", "InProgress"):
                    job.state = "InProgress" if job.polls <= self.polls_before_end else self.jobs_end
                return Answer(200, self._job(job))
            case ("DELETE",):
                del self.jobs[job.id]
                return Answer(204)
            case ("GET", "successfulResults" | "failedResults" as which):
                if job.state not in ("JobComplete", "Failed", "Aborted"):
                    raise errors("INVALIDJOBSTATE", "not yet")
                ours = ["sf__Id", "sf__Created"] if which == "successfulResults" else ["sf__Id", "sf__Error"]
                rows = job.done if which == "successfulResults" else job.failed
                return Answer(200, _csv(ours + job.columns, rows), kind="text/csv")
            case ("GET", "unprocessedrecords"):
                return Answer(200, _csv(job.columns, job.unprocessed), kind="text/csv")
        raise errors("NOT_FOUND", "The requested resource does not exist", 404)

    def _no_job(self) -> Job:
        raise errors("NOT_FOUND", "The requested resource does not exist", 404)

    def _job(self, job: Job) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": job.id,
            "operation": job.operation,
            "object": job.object,
            "state": job.state,
            "contentType": "CSV",
            "apiVersion": 62.0,
            "contentUrl": f"services/data/v{VERSION}/jobs/ingest/{job.id}/batches",
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
            "numberRecordsProcessed": len(job.done) + len(job.failed),
            "numberRecordsFailed": len(job.failed),
        }
        return found | ({"errorMessage": job.message} if job.state == "Failed" else {})

    def _work(self, job: Job) -> None:
        reader = csv.DictReader(io.StringIO((job.data or b"").decode(), newline=""), strict=True)
        job.columns = list(reader.fieldnames or [])
        rows = list(reader)
        if b"\r\n" in (job.data or b"") and not any("\r\n" in (value or "") for row in rows for value in row.values()):
            self.jobs_end, job.message = "Failed", "ClientInputError : LineEnding is invalid on user data"
        unknown = [each for each in job.columns if each not in self.schema[job.object]]
        if unknown:
            self.jobs_end, job.message = "Failed", f"InvalidBatch : Field name not found : {unknown[0]}"
        most = 0 if unknown else len(rows) if self.jobs_end == "JobComplete" else len(rows) // 2
        job.unprocessed = rows[most:]
        for row in rows[:most]:
            result = self._save(job.operation, job.object, self._values(job, row), job.external)
            if result["success"]:
                created = job.operation == "insert" or result.get("created", False)
                job.done.append({"sf__Id": result["id"], "sf__Created": str(created).lower(), **row})
            else:
                one = result["errors"][0]
                words = f"{one['statusCode']}:{one['message']}:{' '.join(one['fields'])} --"
                job.failed.append({"sf__Id": row.get("Id", ""), "sf__Error": words, **row})

    def _values(self, job: Job, row: dict[str, str]) -> dict[str, Any]:
        """A row of CSV: nothing is no change, #N/A is null."""
        values: dict[str, Any] = {}
        for name, text in row.items():
            about = self.schema[job.object][name]
            if text == "":
                continue
            if text == "#N/A":
                values[name] = None
            elif about.type == "boolean":
                values[name] = text.lower() == "true"
            elif about.type in NUMBERS:
                values[name] = json.loads(text)
            else:
                values[name] = text
        if "Id" in values:
            values["id"] = values.pop("Id")
        return values


def _csv(columns: list[str], rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
