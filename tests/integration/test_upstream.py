"""Connections to an old service that speaks TLS."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from circuit_script.gateway.upstream import Broken, Upstream, head_of

LARGE = 1024 * 1024


@pytest.fixture
def certificate(tmp_path):
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / "both.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return path


async def serving(certificate):
    """An answer of a megabyte to each request; gives the server and its address."""

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            assert head.startswith(b"POST /hook HTTP/1.1\r\nhost: localhost")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + b"x" * LARGE)
            await writer.drain()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    return server, httpx.URL(f"https://localhost:{server.sockets[0].getsockname()[1]}/hook")


async def test_an_answer_comes_whole_and_its_connection_is_used_again(certificate, monkeypatch):
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: ssl.create_default_context(cafile=certificate))
    server, url = await serving(certificate)
    upstream, wires = Upstream(url), set()
    async with server:
        for _ in range(3):
            wire = await upstream.send(head_of("POST", b"/hook", [(b"host", upstream.host)]), b"")
            await wire.answered()
            size = 0
            while piece := await wire.piece():
                size += len(piece)
            assert (wire.status, size) == (200, LARGE)
            upstream.release(wire)
            wires.add(wire)
        upstream.close()
    assert len(wires) == 1


async def test_a_certificate_that_nobody_knows_is_refused(certificate):
    server, url = await serving(certificate)
    async with server:
        with pytest.raises(Broken, match="certificate verify failed"):
            await Upstream(url).send(head_of("POST", b"/hook", []), b"")
