from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.errors import CalloutRefused
from circuit_script.execution.broker.callouts.addresses import Private, not_public, parsed
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.hosts import Host, matches_any

FORBIDDEN = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "172.16.0.1", "100.64.0.1", "0.0.0.0"]


@pytest.mark.parametrize(
    "address",
    [
        *FORBIDDEN,
        "127.255.255.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "172.31.255.255",
        "198.19.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "fd00:ec2::254",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "100::1",
        "64:ff9b:1::a00:1",
        "4000::1",
    ],
)
def test_what_is_not_the_public_internets_is_known(address: str) -> None:
    assert not_public(parsed(address)) is not None


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"])
def test_the_public_internet_is_allowed(address: str) -> None:
    assert not_public(parsed(address)) is None


@given(st.sampled_from(FORBIDDEN), st.integers(0, 7))
def test_a_private_address_stays_private_in_whatever_way_it_is_written(text: str, form: int) -> None:
    number = int(IPv4Address(text))
    written = [
        number | 0xFFFF << 32,  # mapped
        number | 0x64FF9B << 96,  # NAT64
        0x2002 << 112 | number << 80 | 1,  # 6to4
        0x2001 << 112 | (number ^ 0xFFFF_FFFF),  # Teredo
        0x2606 << 112 | 0x5EFE << 32 | number,  # ISATAP
        0x2606 << 112 | 0x2005EFE << 32 | number,
        number,  # IPv4-compatible
        0x64FF9B0001 << 80 | number,  # NAT64 of one's own
    ][form]
    assert not_public(IPv6Address(written)) is not None


@given(st.integers(0, 2**32 - 1))
def test_mapping_an_address_changes_nothing_of_what_it_is(number: int) -> None:
    assert (not_public(IPv4Address(number)) is None) == (not_public(IPv6Address(number | 0xFFFF << 32)) is None)


@given(st.ip_addresses())
def test_what_python_takes_for_private_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if not_public(address) is None:
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_multicast
        assert not address.is_unspecified
        if address.version == 4:
            assert not address.is_private


def _as_of_old(number: int, form: int) -> str:
    a, b, c, d = number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255
    return [
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{c << 8 | d}",
        f"0x{a:x}.0{b:o}.{c}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
    ][form]


@pytest.mark.parametrize("form", range(7))
@pytest.mark.parametrize("address", FORBIDDEN)
async def test_a_host_written_as_a_number_is_read_as_the_system_reads_it(address: str, form: int) -> None:
    host = _as_of_old(int(IPv4Address(address)), form)
    assert socket.inet_aton(host) == IPv4Address(address).packed
    with pytest.raises(CalloutRefused):
        await Guard().checked(host, 80)


async def test_the_refusal_names_the_kind_and_the_line_that_would_allow_it() -> None:
    with pytest.raises(CalloutRefused) as refused:
        await Guard().checked("localhost", 9000)
    assert "localhost is at " in refused.value.detail
    assert "(loopback)" in refused.value.detail
    assert ':9000"]' in refused.value.cure
    assert "circuit.toml" in refused.value.cure


@pytest.mark.parametrize(
    ("entry", "host", "port", "allowed"),
    [
        ("10.0.0.0/8", "10.9.9.9", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, True),  # public
        ("10.0.0.0/8", "192.168.0.1", 80, False),
        ("127.0.0.1:9000", "127.0.0.1", 9000, True),
        ("127.0.0.1:9000", "127.0.0.1", 9001, False),
        ("127.0.0.1:9000", "127.0.0.2", 9000, False),
        ("127.0.0.1", "::ffff:127.0.0.1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:80", "::1", 81, False),
        ("::1", "::1", 443, True),
        ("fd00::/8", "fd00:ec2::254", 80, True),
        ("crm.internal", "crm.internal", 443, True),
        ("CRM.internal.", "crm.internal", 443, True),
        ("crm.internal:443", "crm.internal", 80, False),
        ("crm.internal", "evil.crm.internal", 443, False),
        ("*.internal", "crm.internal", 443, True),
        ("*.internal", "internal", 443, False),
        ("crm.internal", "10.0.0.7", 443, False),
    ],
)
async def test_the_owner_allows_networks_and_hosts(entry: str, host: str, port: int, allowed: bool) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        try:
            return [str(ip_address(name))]
        except ValueError:
            return ["10.0.0.7"]

    guard = Guard(private=Private.of([entry]), resolve=resolve)
    if allowed:
        assert await guard.checked(host, port)
    else:
        with pytest.raises(CalloutRefused):
            await guard.checked(host, port)


@pytest.mark.parametrize("entry", ["a b", "10.0.0.0/33", "host:0", "host:99999", "host:x", "[::1]80", "", "http://x"])
def test_what_is_neither_a_host_nor_a_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Private.of([entry])


@pytest.mark.parametrize(
    ("entries", "host", "expected"),
    [
        (["api.example.com"], "API.example.com.", True),
        (["api.example.com"], "api.example.com.evil.org", False),
        (["*.example.org"], "a.b.example.org", True),
        (["*.example.org"], "example.org", False),
        (["*.example.org"], "badexample.org", False),
        (["bücher.example"], "xn--bcher-kva.example", True),
        (["2606:4700::1111"], "[2606:4700::1111]", True),
        ([], "api.example.com", False),
    ],
)
def test_a_list_of_hosts_means_what_it_says(entries: list[str], host: str, expected: bool) -> None:
    assert matches_any(entries, [host]) is expected


@given(st.from_regex(r"[a-z0-9-]{1,10}(\.[a-z0-9-]{1,10}){0,3}", fullmatch=True))
def test_a_host_means_itself_however_it_is_written(name: str) -> None:
    assert Host.of(name).matches(name.upper() + ".")
    assert not Host.of(name).matches(f"x{name}")
    assert Host.of(f"*.{name}").matches(f"x.{name}")


async def test_of_mixed_answers_only_the_public_ones_are_used() -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return ["10.0.0.1", "8.8.8.8", "::1", "1.1.1.1"]

    assert await Guard(resolve=resolve).checked("mixed.example", 80) == ["8.8.8.8", "1.1.1.1"]
    with pytest.raises(CalloutRefused):  # who resolves by itself may take any of them
        await Guard(resolve=resolve).check_all("mixed.example", 80)


async def test_both_lists_must_allow_a_host() -> None:
    guard = Guard(egress=("*.example.org", "api.example.com"))
    guard.check_host("a.example.org", None)
    guard.check_host("api.example.com", ("api.example.com",))
    with pytest.raises(CalloutRefused, match=r"b\.example is not in the egress list of the app"):
        guard.check_host("b.example", None)
    with pytest.raises(CalloutRefused, match="list of the handler"):
        guard.check_host("a.example.org", ("api.example.com",))
    with pytest.raises(CalloutRefused, match="list of the app"):
        guard.check_host("b.example", ("b.example",))


async def test_a_connection_counts_as_a_names_only_when_the_name_has_its_address() -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return {"db.example": ["8.8.8.8"], "crm.internal": ["10.0.0.7"]}[name]

    guard = Guard(egress=("db.example", "crm.internal"), private=Private.of(["crm.internal"]), resolve=resolve)
    await guard.check_connection(parsed("8.8.8.8"), 5432, ["db.example"], None)
    await guard.check_connection(parsed("10.0.0.7"), 443, ["db.example", "crm.internal"], None)
    with pytest.raises(CalloutRefused):  # the name that is allowed was looked up, but leads elsewhere
        await guard.check_connection(parsed("127.0.0.1"), 443, ["evil.example", "crm.internal"], None)
    for address, names in (("9.9.9.9", ["db.example"]), ("10.0.0.8", ["crm.internal"]), ("8.8.8.8", [])):
        with pytest.raises(CalloutRefused):
            await asyncio.wait_for(guard.check_connection(parsed(address), 443, names, None), 5)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::7f00:1", True),
        ("2002:7f00:1::", True),
        ("fe80::5efe:7f00:1", False),  # ISATAP within a private network
        ("fd00::5efe:7f00:1", False),
        ("4000::5efe:7f00:1", False),
    ],
)
def test_an_ipv4_address_is_allowed_only_within_what_leads_to_it(address: str, allowed: bool) -> None:
    assert Private.of(["127.0.0.1:9000"]).allows(parsed(address), 9000, ()) is allowed


def test_a_name_means_what_httpx_connects_to() -> None:
    assert matches_any(["faß.de"], ["xn--fa-hia.de"])
    assert not matches_any(["fass.de"], ["faß.de"])
    assert not matches_any(["faß.de"], ["fass.de"])
    assert matches_any(["*.Bücher.example"], ["a.xn--bcher-kva.example"])
    with pytest.raises(ValueError, match="is no host"):
        Host.of("a\u2028b.example")


async def test_a_name_is_looked_up_as_lists_read_it() -> None:
    asked: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["8.8.8.8"]

    guard = Guard(egress=("faß.de",), resolve=resolve)
    await guard.check_connection(parsed("8.8.8.8"), 80, ["faß.de"], None)
    assert asked == ["xn--fa-hia.de"]
