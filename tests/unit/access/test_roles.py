"""What each role may do, and what a browser's headers say."""

from __future__ import annotations

from uuid import UUID

import pytest

from circuit_script.access import (
    ALL,
    Act,
    Person,
    Role,
    cookie_name,
    is_same_origin,
    may,
    read_cookie,
    same_csrf,
    set_cookie,
    without_sessions,
)

ANN = Person(UUID(int=1), "ann", {"acme": Role.operator, "globex": Role.owner, ALL: Role.viewer})


def test_a_greater_role_may_all_that_a_lesser_one_may_and_nobody_without_one_anything() -> None:
    allowed = [{act for act in Act if may(role, act)} for role in Role]
    assert [sorted(some) for some in allowed] == [sorted(set().union(*allowed[: n + 1])) for n in range(len(allowed))]
    assert allowed[0] == {Act.see}
    assert allowed[-1] == set(Act)
    assert Act.manage_people not in allowed[-2]
    assert Act.edit not in allowed[1]
    assert not any(may(None, act) for act in Act)


def test_a_person_has_the_greater_of_its_roles_and_for_all_tenants_only_what_was_given_for_all() -> None:
    tenants = ("acme", "globex", "other", ALL, None)
    roles = [ANN.role_in(each) for each in tenants]
    assert roles == [Role.operator, Role.owner, Role.viewer, Role.viewer, Role.viewer]
    assert ANN.tenants == ("acme", "globex")
    assert ANN.everywhere
    less = ANN.at_most(Role.operator)
    assert [less.role_in(each) for each in tenants[:3]] == [Role.operator, Role.operator, Role.viewer]
    assert Person(UUID(int=2), "bob").role_in(None) is None


@pytest.mark.parametrize(
    ("origin", "site", "host", "url", "same"),
    [
        ("http://127.0.0.1:8000", None, "127.0.0.1:8000", "", True),
        ("http://127.0.0.1:8002", None, "127.0.0.1:8000", "", False),
        ("HTTP://LOCALHOST:8000", None, "localhost:8000", "", True),
        ("https://a.example", None, "x:1", "https://a.example/sub", True),
        ("http://a.example", None, "a.example", "https://a.example", False),
        ("https://a.example.evil.example", None, "a.example", "https://a.example", False),
        ("https://a.example@evil.example", None, "evil.example", "", False),
        ("https://evil.example/", None, "evil.example", "", False),
        ("null", None, "null", "", False),
        ("", None, "", "", False),
        ("http://[", None, "x", "", False),
        ("http://x:99999999", None, "x:99999999", "", False),
        (None, None, "x", "", True),
        (None, "same-origin", "x", "", True),
        (None, "same-site", "x", "", False),
        (None, "cross-site", "x", "", False),
        ("http://x", None, None, "", False),
    ],
)
def test_only_pages_of_ours_are_of_the_same_origin(
    origin: str | None, site: str | None, host: str | None, url: str, same: bool
) -> None:
    assert is_same_origin(origin, site, host, url) is same


def test_a_cookie_is_read_from_its_own_name_only_and_never_from_two() -> None:
    assert read_cookie("a=b; circuit_session=x; c=d", secure=False) == "x"
    assert read_cookie("circuit_session=x", secure=True) is None
    assert read_cookie("circuit_session=x; circuit_session=y", secure=False) is None
    assert read_cookie("xcircuit_session=x", secure=False) is None
    assert read_cookie(None, secure=False) is None
    assert set_cookie("x", 10.5, secure=True).startswith(f"{cookie_name(secure=True)}=x; Path=/; Max-Age=10; HttpOnly")
    for given in (None, "", "Abc", "abcd", "\ud800"):
        assert not same_csrf("abc", given)
    assert same_csrf("abc", "abc")


def test_an_app_gets_no_credential_of_a_person_and_all_of_its_own() -> None:
    theirs = [(b"cookie", b"a=b; theirs=circuit_session"), (b"authorization", b"Bearer app"), (b"x", b"y")]
    ours = [
        (b"cookie", b"circuit_session=secret"),
        (b"cookie", b" circuit_session =secret;__Host-circuit_session=secret"),
        (b"authorization", b"Bearer csp_secret"),
        (b"authorization", b"bearer   csp_secret"),
    ]
    assert without_sessions([*theirs, *ours]) == theirs
    mixed = without_sessions([(b"cookie", b"a=b;circuit_session=secret; c=d")])
    assert mixed == [(b"cookie", b"a=b; c=d")]
