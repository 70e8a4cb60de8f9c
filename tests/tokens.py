"""Tokens as Google's Pub/Sub sends them, and a server that publishes keys."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from tests.signing import NOW

AUDIENCE = "https://hooks.example.com/webhooks/google"
EMAIL = "pusher@project.iam.gserviceaccount.com"
KEYS = {name: generate_private_key(65537, 2048) for name in ("k1", "k2")}
CLAIMS = {
    "iss": "https://accounts.google.com",
    "aud": AUDIENCE,
    "email": EMAIL,
    "email_verified": True,
    "iat": NOW - 10,
    "exp": NOW + 3590,
    "sub": "1",
}


def b64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def token(kid="k1", *, key=None, head=None, **claims):
    """A token of these claims, over the usual ones; None leaves one away."""
    claims = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    head = {"alg": "RS256", "typ": "JWT", "kid": kid, **(head or {})}
    signed = ".".join(b64url(json.dumps(each).encode()) for each in (head, claims))
    key = KEYS[key or kid]
    return f"{signed}.{b64url(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def jwks(*names):
    """These keys as Google publishes them."""
    keys = []
    for name in names:
        numbers = KEYS[name].public_key().public_numbers()
        n, e = (b64url(each.to_bytes((each.bit_length() + 7) // 8, "big")) for each in (numbers.n, numbers.e))
        keys.append({"kid": name, "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e})
    return json.dumps({"keys": keys}).encode()


class KeyServer:
    """Publishes ``body`` and counts who asks; ``gate`` holds answers back."""

    def __init__(self):
        self.body = jwks("k1")
        self.status = 200
        self.headers = {"cache-control": "public, max-age=3600"}
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    async def answer(self, _):
        self.asked += 1
        await self.gate.wait()
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def key_server():
    server = KeyServer()
    app = web.Application()
    app.router.add_get("/certs", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/certs"
    try:
        yield server
    finally:
        server.gate.set()
        await runner.cleanup()
