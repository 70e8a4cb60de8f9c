"""Signing in: by password and by link, slowed down for who guesses, ended by what matters to an account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher

from circuit_script.access import (
    ALL,
    Account,
    Refused,
    Role,
    SignedIn,
    add_person,
    attempts,
    find_person,
    grant,
    list_people,
    list_tokens,
    make_token,
    one_time_link,
    passwords,
    person_of_token,
    redeem,
    remove_person,
    revoke,
    revoke_token,
    session_of,
    sessions,
    sessions_of,
    set_password,
    sign_in,
    sign_out,
    sign_out_everywhere,
)
from circuit_script.db.pool import Connection, open_connection, tenant_reading
from circuit_script.errors import PeopleRefused

GOOD = "correct horse battery"
HOSTILE = ["", "\0", "a\0b", "\ud800", "x" * 1_000_000, "ann@\nx", "'; --", "‮ann", "ann@x.com\0"]


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    made = await open_connection(database)
    yield made
    await made.close()


async def ann(connection: Connection) -> Account:
    await add_person(connection, "Ann@Example.com", "test", password=GOOD)
    await grant(connection, "ann@example.com", "acme", Role.operator, "test")
    return await find_person(connection, "ANN@example.com")


async def signed_in(connection: Connection, password: str = GOOD, address: str = "10.0.0.1") -> SignedIn:
    found = await sign_in(connection, "ann@example.com", password, address)
    assert isinstance(found, SignedIn)
    return found


async def still_waiting(connection: Connection) -> None:
    """However slow this machine is: who waits does so for an hour."""
    await connection.execute(
        "UPDATE circuit.sign_in_attempts SET until = clock_timestamp() + interval '1 hour' WHERE until > last_at"
    )


@pytest.mark.every_server
async def test_who_signs_in_has_a_session_of_which_only_a_hash_is_stored(connection: Connection) -> None:
    account = await ann(connection)
    first = await signed_in(connection)
    again = await sign_in(connection, " ANN@EXAMPLE.COM ", GOOD, "10.0.0.1", replaces=first.cookie)
    assert isinstance(again, SignedIn)
    assert again.cookie != first.cookie
    assert await session_of(connection, first.cookie) is None
    found = await session_of(connection, again.cookie)
    assert found == again.session
    assert found is not None
    assert found.person == account.person
    assert found.csrf != again.cookie
    for table in ("people", "sessions", "sign_in_attempts"):
        rows = await (await connection.execute(f"SELECT t::text FROM circuit.{table} t".encode())).fetchall()
        assert not any(secret in row[0] for row in rows for secret in (again.cookie, found.csrf, GOOD))
    assert [each.id for each in await sessions_of(connection, account.person.id)] == [found.id]
    await sign_out(connection, again.cookie)
    assert await session_of(connection, again.cookie) is None
    for wrong in (None, *HOSTILE, "é" * 43, again.cookie + "="):
        assert await session_of(connection, wrong) is None


async def test_a_session_ends_at_its_end_unused_and_by_what_matters_to_its_account(connection: Connection) -> None:
    account = await ann(connection)
    for ending in ("ends_at = now() - interval '1 second'", "seen_at = now() - interval '121 minutes'"):
        found = await signed_in(connection)
        await connection.execute(f"UPDATE circuit.sessions SET {ending}".encode())
        assert await session_of(connection, found.cookie) is None
    found = await signed_in(connection)
    await connection.execute("UPDATE circuit.sessions SET seen_at = now() - interval '119 minutes'")
    assert await session_of(connection, found.cookie, touch=False)
    await session_of(connection, found.cookie)
    assert (await sessions_of(connection, account.person.id))[0].seen_at > found.session.ends.replace(year=2000)

    async def now_gone() -> bool:
        nonlocal found
        was, found = found, await signed_in(connection)
        return await session_of(connection, was.cookie) is None

    await grant(connection, "ann@example.com", "globex", Role.viewer, "test")
    assert await now_gone()
    await revoke(connection, "ann@example.com", "globex")
    assert await now_gone()
    await set_password(connection, "ann@example.com", GOOD)
    assert await now_gone()
    assert not await now_gone()  # another sign-in leaves it alone
    assert await sign_out_everywhere(connection, account.person.id) >= 2
    assert await now_gone()
    for _ in range(3):
        assert await sessions.open_session(connection, account.person.id, "x")
    for _ in range(sessions.MOST):
        assert await sessions.open_session(connection, account.person.id, "x\0y")
    assert len(await sessions_of(connection, account.person.id)) == sessions.MOST
    await remove_person(connection, "ann@example.com")
    row = await (await connection.execute("SELECT count(*) FROM circuit.sessions")).fetchone()
    assert row == (0,)


async def test_wrong_names_and_passwords_are_answered_alike_after_the_same_work(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann(connection)
    await add_person(connection, "nopassword@example.com", "test")
    compared: list[str] = []
    verify = passwords._verify

    def counted(encoded: bytes | None, stored: str | None) -> bool:
        compared.append("one")
        return verify(encoded, stored)

    monkeypatch.setattr(passwords, "_verify", counted)
    tries = [("ann@example.com", "wrong"), ("nobody@example.com", GOOD), ("nopassword@example.com", "")]
    tries += [(each, GOOD) for each in HOSTILE] + [("ann@example.com", each) for each in HOSTILE[:3]]
    for number, (name, password) in enumerate(tries):
        assert await sign_in(connection, name, password, f"10.1.{number}.1") == Refused(0.0), (name[:20], password[:20])
        assert len(compared) == number + 1
    assert not passwords.is_outdated(passwords.NOBODYS)
    assert not await passwords.is_right("nobody has this password", None)


async def test_who_guesses_waits_ever_longer_and_many_at_once_gain_nothing(database: str) -> None:
    wires = [await open_connection(database) for _ in range(12)]
    first = wires[0]
    try:
        await ann(first)
        for name in ("ann@example.com", "nobody@example.com"):
            guesses = (sign_in(wire, name, f"guess number {n}", f"10.2.{n}.1") for n, wire in enumerate(wires))
            found = await asyncio.gather(*guesses)
            assert all(isinstance(each, Refused) for each in found)
            row = await (
                await first.execute(
                    "SELECT n FROM circuit.sign_in_attempts WHERE kind = 'account' ORDER BY last_at DESC"
                )
            ).fetchone()
            assert row is not None
            assert 6 <= row[0] < 9  # the sixth made the others wait for two seconds
            await still_waiting(first)
            locked = await sign_in(first, name, GOOD, "10.9.9.9")
            assert isinstance(locked, Refused)
            assert 0 < locked.retry_after <= 3600
        await first.execute("UPDATE circuit.sign_in_attempts SET n = 6 WHERE kind = 'account'")
        waits = []
        for _ in range(12):
            await first.execute("UPDATE circuit.sign_in_attempts SET until = now() - interval '1 second'")
            taken = await attempts.take(first, "ann@example.com", "10.3.3.3")
            waits.append(round(taken.wait))
        assert waits == [4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]
        await first.execute("UPDATE circuit.sign_in_attempts SET until = now() - interval '1 second'")
        assert isinstance(await sign_in(first, "ann@example.com", GOOD, "10.3.3.3"), SignedIn)
        assert isinstance(await sign_in(first, "ann@example.com", "wrong", "10.3.3.3"), Refused)
        assert isinstance(await sign_in(first, "ann@example.com", GOOD, "10.3.3.3"), SignedIn)
        await first.execute("UPDATE circuit.sign_in_attempts SET last_at = now() - interval '25 hours'")
        await attempts.take(first, "x", "y")
        row = await (await first.execute("SELECT count(*) FROM circuit.sign_in_attempts")).fetchone()
        assert row == (2,)
    finally:
        for wire in wires:
            await wire.close()


async def test_one_address_may_not_guess_at_many_accounts_nor_move_within_its_network(connection: Connection) -> None:
    await ann(connection)
    for number in range(20):
        taken = await attempts.take(connection, f"somebody{number}", f"2001:db8::{number}")
        assert taken.wait == 0
    assert (await attempts.take(connection, "somebody else", "2001:db8::ffff")).wait > 0
    await still_waiting(connection)
    refused = await sign_in(connection, "ann@example.com", GOOD, "2001:db8::beef")
    assert isinstance(refused, Refused)
    assert refused.retry_after > 0
    assert isinstance(await sign_in(connection, "ann@example.com", GOOD, "2001:db8:1::1"), SignedIn)
    row = await (
        await connection.execute("SELECT count(*) FROM circuit.sign_in_attempts WHERE kind = 'account'")
    ).fetchone()
    assert row == (21,)  # what the address was refused does not count against Ann
    for header, peer, expected in (
        ("1.1.1.1, 2.2.2.2", "127.0.0.1", "2.2.2.2"),
        ("1.1.1.1", "9.9.9.9", "9.9.9.9"),
        (None, "127.0.0.1", "127.0.0.1"),
        (" ", "::1", "::1"),
    ):
        assert attempts.client_address(peer, header) == expected


async def test_a_password_that_is_changed_while_it_is_compared_opens_no_session(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann(connection)
    other = await open_connection(database)
    right = passwords.is_right

    async def slow(password: str, stored: str | None) -> bool:
        found = await right(password, stored)
        await set_password(other, "ann@example.com", "another one entirely")
        return found

    monkeypatch.setattr(passwords, "is_right", slow)
    assert isinstance(await sign_in(connection, "ann@example.com", GOOD, "10.0.0.1"), Refused)
    row = await (await connection.execute("SELECT count(*) FROM circuit.sessions")).fetchone()
    assert row == (0,)
    await other.close()


async def test_too_many_at_once_are_sent_away_without_counting_against_anybody(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann(connection)
    monkeypatch.setattr(passwords, "MAX_WAITING", 0)
    for _ in range(8):
        assert await sign_in(connection, "ann@example.com", GOOD, "10.0.0.1") == Refused(1.0)
    with pytest.raises(PeopleRefused, match="at this moment"):
        await set_password(connection, "ann@example.com", "another one entirely")
    monkeypatch.setattr(passwords, "MAX_WAITING", 4)
    await signed_in(connection)


async def test_old_parameters_are_renewed_when_somebody_signs_in(connection: Connection) -> None:
    await ann(connection)
    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(GOOD)
    await connection.execute("UPDATE circuit.people SET password = %s", [old])
    found = await signed_in(connection)
    row = await (await connection.execute("SELECT password FROM circuit.people")).fetchone()
    assert row is not None
    assert not passwords.is_outdated(row[0])
    assert await session_of(connection, found.cookie)


async def test_a_link_signs_in_once_within_ten_minutes_however_many_open_it(database: str) -> None:
    wires = [await open_connection(database) for _ in range(6)]
    first = wires[0]
    try:
        links = await asyncio.gather(*(one_time_link(wire, "http://127.0.0.1:8002/") for wire in wires))
        assert len(set(links)) == len(wires)
        assert len(await list_people(first)) == 1  # one owner, by however many links
        token = links[0].removeprefix("http://127.0.0.1:8002/sign-in?link=")
        found = await asyncio.gather(*(redeem(wire, token, "10.0.0.1") for wire in wires))
        (made,) = [each for each in found if isinstance(each, SignedIn)]
        assert made.session.person.memberships == {ALL: Role.owner}
        row = await (await first.execute("SELECT string_agg(l::text, ' ') FROM circuit.sign_in_links l")).fetchone()
        assert row is not None
        assert links[1].rpartition("=")[2] not in row[0]
        await first.execute("UPDATE circuit.sign_in_links SET ends_at = now() - interval '1 second'")
        assert await redeem(first, links[1].rpartition("=")[2]) == Refused()
        ended = (await one_time_link(first, "http://x", "owner")).rpartition("=")[2]
        await set_password(first, "owner", GOOD)
        for wrong in (ended, *HOSTILE, "A" * 43):
            assert await redeem(first, wrong) == Refused()
        with pytest.raises(PeopleRefused, match="nobody"):
            await one_time_link(first, "http://x", "nobody")
    finally:
        for wire in wires:
            await wire.close()


async def test_the_last_owner_stays_even_when_two_take_each_others_role_away(database: str) -> None:
    one, other = await open_connection(database), await open_connection(database)
    try:
        for name in ("ann", "bob"):
            await add_person(one, name, "test")
            await grant(one, name, ALL, Role.owner, "test")
        answers = await asyncio.gather(
            grant(one, "ann", ALL, Role.viewer, "bob"), remove_person(other, "bob"), return_exceptions=True
        )
        (refused,) = [each for each in answers if each is not None]
        assert isinstance(refused, PeopleRefused)
        assert sum(each.person.role_in(None) is Role.owner for each in await list_people(one)) == 1
    finally:
        await one.close()
        await other.close()


async def test_names_and_passwords_that_can_be_none_are_refused(connection: Connection) -> None:
    await ann(connection)
    for name in (*HOSTILE, "two words", "ＡＮＮ@example.com", "ann@EXAMPLE.com"):
        with pytest.raises(PeopleRefused):
            await add_person(connection, name, "test")
    for weak in ("short", "a" * 40, "x" * 2000, "\ud800" + GOOD, "ann@Example.com"):
        with pytest.raises(PeopleRefused):
            await set_password(connection, "ann@example.com", weak)
    for tenant in ("", "a\0b", "x" * 300):
        with pytest.raises(PeopleRefused):
            await grant(connection, "ann@example.com", tenant, Role.viewer, "test")
    await set_password(connection, "ann@example.com", "pässwörd of Ann ✓ \0")
    await signed_in(connection, "pa\u0308sswo\u0308rd of Ann ✓ \0")  # as another keyboard composes it


async def test_a_token_is_its_persons_and_never_more_than_it_may_be(connection: Connection) -> None:
    account = await ann(connection)
    await grant(connection, "ann@example.com", "globex", Role.viewer, "test")
    token, made = await make_token(connection, "ann@example.com", "laptop")
    less, _ = await make_token(connection, "ann@example.com", "phone", most=Role.viewer, lasts=3600)
    rows = await (await connection.execute("SELECT t::text FROM circuit.person_tokens t")).fetchall()
    assert not any(token in row[0] or less in row[0] for row in rows)
    found, lesser = await person_of_token(connection, token), await person_of_token(connection, less)
    assert found is not None
    assert lesser is not None
    assert (found.role_in("acme"), lesser.role_in("acme"), lesser.role_in("other")) == (
        Role.operator,
        Role.viewer,
        None,
    )
    assert [each.last_used_at is None for each in await list_tokens(connection, account.person.id)] == [False, False]
    await connection.execute("UPDATE circuit.person_tokens SET ends_at = now() WHERE name = 'phone'")
    assert await person_of_token(connection, less) is None
    await revoke(connection, "ann@example.com", "acme")
    found = await person_of_token(connection, token)
    assert found is not None
    assert found.role_in("acme") is None
    for again in ("laptop", ""):
        with pytest.raises(PeopleRefused):
            await make_token(connection, "ann@example.com", again)
    await revoke_token(connection, account.person.id, made.prefix)
    with pytest.raises(PeopleRefused):
        await revoke_token(connection, account.person.id, "laptop")
    for wrong in (token, *HOSTILE, "csp_", "csp_" + "é" * 43):
        assert await person_of_token(connection, wrong) is None


async def test_no_tenant_sees_anything_of_it(connection: Connection) -> None:
    await ann(connection)
    tables = ("people", "memberships", "sessions", "sign_in_links", "person_tokens", "sign_in_attempts")
    for table in tables:
        with pytest.raises(Exception, match="permission denied"):
            async with tenant_reading(connection, "acme"):
                await connection.execute(f"SELECT 1 FROM circuit.{table}".encode())


async def test_passwords_are_compared_two_at_a_time_while_the_loop_goes_on() -> None:
    stored = await passwords.hashed(GOOD)
    work = [asyncio.create_task(passwords.is_right(GOOD, stored)) for _ in range(4)]
    turns = 0
    while not all(each.done() for each in work):
        turns += 1
        await asyncio.sleep(0)
    assert all(each.result() for each in work)
    assert turns > 10
    assert passwords._threads()._max_workers == passwords.AT_ONCE
