"""Requests as vendors sign them, made with nothing but the standard library."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from circuit_script.config import SourceSettings
from circuit_script.events.sources import Request

NOW = 1_800_000_000
HOST = "hooks.example.com"
OLD, NEW, OTHER = "old-secret-0123456789abcdef", "new-secret-0123456789abcdef", "oth-secret-0123456789abcdef"
ORGANIZATION = "00Dxx0000001gEREAY"
ACCOUNT = "AC" + "a" * 32


def standard(secret: str) -> str:
    """The secret as Standard Webhooks and Svix write it."""
    return "whsec_" + base64.b64encode(secret.encode()).decode()


SETTINGS = SourceSettings.model_validate(
    {
        "standard": {"secrets": {"acme": [standard(OLD), standard(NEW)]}},
        "salesforce": {"secrets": {ORGANIZATION: [OLD, NEW]}},
        "hubspot": {"secrets": [OLD, NEW]},
        "twilio": {"secrets": {ACCOUNT: [OLD, NEW]}},
        "vapi": {"secrets": [OLD, NEW], "auth": "hmac"},
        "resend": {"secrets": [standard(OLD), standard(NEW)]},
        "slack": {"secrets": [OLD, NEW]},
        "github": {"secrets": [OLD, NEW]},
        "meta": {"secrets": [OLD, NEW], "verify_token": "a word"},
        "stripe": {"secrets": [OLD, NEW]},
        "linkedin": {"secrets": [OLD, NEW]},
        "hmac": {
            "shop": {
                "secrets": [OLD, NEW],
                "header": "X-Shop-Signature",
                "algorithm": "sha512",
                "encoding": "base64",
                "prefix": "v1=",
                "template": "{method} {path} {timestamp} {header:x-shop-id} {body}",
                "timestamp_header": "X-Shop-Time",
                "id": "header:x-shop-id",
                "type": "kind",
                "record": "data.customer.id",
                "account": "shop",
                "objects": {"customer/new": "Contact.afterInsert", "customer/gone": "Contact.afterDelete"},
            }
        },
    }
)

Headers = dict[str, str]


def mac(secret: str, signed: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), signed, algorithm).digest()


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


@dataclass(frozen=True)
class Vendor:
    """How one vendor signs: (body, seconds, secret) → headers. ``clock`` names the header with the time, ``signature``
    the one that the signature stands in."""

    name: str
    sign: Callable[[bytes, float, str], Headers]
    body: bytes
    signature: str
    clock: str | None = None
    account: str | None = None
    needed: tuple[str, ...] = ()
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/webhooks/{self.name}" + (f"/{self.account}" if self.account else "")

    def request(
        self, body: bytes | None = None, *, at: float = NOW, secret: str = NEW, now: float = NOW, host: str = HOST
    ) -> Request:
        body = self.body if body is None else body
        headers = {"host": host, **self.more, **self.sign(body, at, secret)}
        return Request("POST", self.path, b"", headers, body, now, self.account)


def url(name: str, host: str = HOST) -> str:
    return f"https://{host}/webhooks/{name}"


def _svix(prefix: str) -> Callable[[bytes, float, str], Headers]:
    def sign(body: bytes, at: float, secret: str) -> Headers:
        signed = f"msg_1.{int(at)}.".encode() + body
        return {
            f"{prefix}-id": "msg_1",
            f"{prefix}-timestamp": str(int(at)),
            f"{prefix}-signature": "v1," + b64(mac(secret, signed)),
        }

    return sign


def _hubspot(body: bytes, at: float, secret: str, host: str = HOST) -> Headers:
    stamp = str(int(at * 1000))
    signed = b"POST" + url("hubspot", host).encode() + body + stamp.encode()
    return {"x-hubspot-signature-v3": b64(mac(secret, signed)), "x-hubspot-request-timestamp": stamp}


def twilio(body: bytes, at: float, secret: str, host: str = HOST) -> Headers:
    tail = "".join(name + value for name, value in sorted(set(parse_qsl(body.decode(), keep_blank_values=True))))
    return {"x-twilio-signature": b64(mac(secret, (url("twilio", host) + tail).encode(), "sha1"))}


def _slack(body: bytes, at: float, secret: str) -> Headers:
    signed = f"v0:{int(at)}:".encode() + body
    return {
        "x-slack-request-timestamp": str(int(at)),
        "x-slack-signature": "v0=" + mac(secret, signed).hex(),
    }


def _stripe(body: bytes, at: float, secret: str) -> Headers:
    return {"stripe-signature": f"t={int(at)},v1={mac(secret, f'{int(at)}.'.encode() + body).hex()},v0=abc"}


def _hub(body: bytes, at: float, secret: str) -> Headers:
    return {"x-hub-signature-256": "sha256=" + mac(secret, body).hex()}


def _linkedin(body: bytes, at: float, secret: str) -> Headers:
    return {"x-li-signature": mac(secret, b"hmacsha256=" + body).hex()}


def _vapi(body: bytes, at: float, secret: str) -> Headers:
    stamp = str(int(at * 1000))
    return {"x-timestamp": stamp, "x-signature": mac(secret, stamp.encode() + b"." + body).hex()}


def _shop(body: bytes, at: float, secret: str) -> Headers:
    stamp = str(int(at))
    signed = f"POST /webhooks/hmac/shop {stamp} evt_9 ".encode() + body
    return {
        "x-shop-id": "evt_9",
        "x-shop-time": stamp,
        "x-shop-signature": "v1=" + b64(mac(secret, signed, "sha512")),
    }


def json_of(value: object) -> bytes:
    return json.dumps(value).encode()


SMS = {
    "MessageSid": "SM1",
    "AccountSid": ACCOUNT,
    "From": "+14155552345",
    "To": "+14155552344",
    "Body": "Hello, Zoë & all",
    "SmsStatus": "received",
}
CHANGE = {
    "eventId": 7,
    "subscriptionId": 1,
    "portalId": 12345678,
    "occurredAt": 1708986598741,
    "subscriptionType": "contact.propertyChange",
    "attemptNumber": 0,
    "objectId": 65059681032,
    "propertyName": "firstname",
    "propertyValue": "Ada",
}
CALLBACK = {
    "team_id": "T1",
    "type": "event_callback",
    "event_id": "Ev1",
    "event": {"type": "message", "channel": "C1", "user": "U1", "text": "approve 42", "ts": "1708986598.000200"},
}
VENDORS = {
    each.name: each
    for each in (
        Vendor(
            "standard",
            _svix("webhook"),
            json_of({"type": "Contact.afterInsert", "data": {"id": "C1"}}),
            "webhook-signature",
            "webhook-timestamp",
            "acme",
            ("webhook-id",),
        ),
        Vendor("hubspot", _hubspot, json_of([CHANGE]), "x-hubspot-signature-v3", "x-hubspot-request-timestamp"),
        Vendor("twilio", twilio, urlencode(SMS).encode(), "x-twilio-signature"),
        Vendor(
            "vapi",
            _vapi,
            json_of({"message": {"type": "status-update", "status": "ended", "call": {"id": "V1", "orgId": "O1"}}}),
            "x-signature",
            "x-timestamp",
        ),
        Vendor(
            "resend",
            _svix("svix"),
            json_of({"type": "email.bounced", "data": {"email_id": "E1", "subject": "Hi"}}),
            "svix-signature",
            "svix-timestamp",
            None,
            ("svix-id",),
        ),
        Vendor("slack", _slack, json_of(CALLBACK), "x-slack-signature", "x-slack-request-timestamp"),
        Vendor(
            "github",
            _hub,
            json_of(
                {"action": "opened", "issue": {"id": 1, "title": "It broke"}, "repository": {"full_name": "acme/shop"}}
            ),
            "x-hub-signature-256",
            more={"x-github-event": "issues", "x-github-delivery": "d-1"},
        ),
        Vendor(
            "meta",
            _hub,
            json_of(
                {
                    "object": "page",
                    "entry": [
                        {
                            "id": "153",
                            "time": 1,
                            "changes": [{"field": "leadgen", "value": {"leadgen_id": "L1", "form_id": "F1"}}],
                        }
                    ],
                }
            ),
            "x-hub-signature-256",
        ),
        Vendor(
            "stripe",
            _stripe,
            json_of(
                {
                    "id": "evt_1",
                    "type": "customer.created",
                    "account": "acct_1",
                    "data": {"object": {"id": "cus_1", "object": "customer", "email": "ada@example.com"}},
                }
            ),
            "stripe-signature",
        ),
        Vendor(
            "linkedin",
            _linkedin,
            json_of(
                {
                    "type": "LEAD_ACTION",
                    "leadGenFormResponse": "urn:li:leadGenFormResponse:1",
                    "owner": {"sponsoredAccount": "urn:li:sponsoredAccount:5"},
                    "leadAction": "CREATED",
                }
            ),
            "x-li-signature",
        ),
        Vendor(
            "hmac",
            _shop,
            json_of({"kind": "customer/new", "shop": "shop-1", "data": {"customer": {"id": "K1"}}}),
            "x-shop-signature",
            "x-shop-time",
            "shop",
        ),
    )
}


def outbound(*records: str, organization: str = ORGANIZATION, head: str = "", ids: str = "04l") -> bytes:
    """An outbound message of Salesforce; each record is the XML of its fields."""
    notifications = "".join(
        f'<Notification><Id>{ids}{n}</Id><sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise'
        f'.soap.sforce.com">{each}</sObject></Notification>'
        for n, each in enumerate(records)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        f"<OrganizationId>{organization}</OrganizationId><ActionId>04k</ActionId>"
        f'<SessionId xsi:nil="true"/>{notifications}</notifications></soapenv:Body></soapenv:Envelope>'
    ).encode()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
