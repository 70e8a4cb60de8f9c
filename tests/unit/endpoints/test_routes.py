"""Which endpoint a request means."""

from __future__ import annotations

import pytest

from circuit_script.endpoints.protocol import Offer
from circuit_script.endpoints.routes import Routes
from circuit_script.execution.outcome import EndpointSpec, Way


def offer(name: str, *methods: str, path: str, kind: str = "endpoint") -> Offer:
    return Offer(name, EndpointSpec((Way(methods or ("GET",), path),), kind=kind))


ROUTES = Routes([
    offer("web", "GET", "POST", path=r"/.*", kind="web"),
    offer("lead", path=r"/api/leads/(?P<id>[^/]+)"),
    offer("change", "POST", path=r"/api/leads/(?P<id>[^/]+)"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/leads/1", "lead"),
        ("POST", "/api/leads/1", "change"),
        ("GET", "/api/leads/1/2", "web"),
        ("GET", "/", "web"),
    ],
)
def test_functions_come_before_web_routes_and_each_method_has_its_own(method: str, path: str, name: str) -> None:
    found = ROUTES.find(method, path)
    assert found is not None
    assert found.offer is not None
    assert (found.offer.name, found.method) == (name, method)


def test_head_is_a_get_where_no_handler_takes_it() -> None:
    found = ROUTES.find("HEAD", "/api/leads/1")
    assert found is not None
    assert found.offer is not None
    assert (found.offer.name, found.method) == ("lead", "GET")


def test_a_known_path_with_another_method_names_the_methods_it_takes() -> None:
    routes = Routes([offer("lead", path="/api/lead")])
    found = routes.find("DELETE", "/api/lead")
    assert found is not None
    assert found.offer is None
    assert found.allowed == ("GET", "HEAD")
    assert routes.find("GET", "/api/lead/") is None
