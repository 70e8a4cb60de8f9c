"""What the API answers instead: problem+json, whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import psycopg
from fastapi import Request, Response
from fastapi.routing import APIRoute

from circuit_script import problems
from circuit_script.errors import CircuitError

PREFIX = "/api/v1"
PAGE = "people"

log = logging.getLogger(__name__)


class ApiRefused(Exception):
    """An answer that is a problem. ``reason`` is the word for programs."""

    def __init__(
        self, status: int, reason: str, detail: str, *, page: str = PAGE, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        self.page = page
        self.headers = dict(headers or {})
        super().__init__(detail)

    @property
    def response(self) -> Response:
        body = problems.render(self.status, self.detail, self.reason, page=self.page)
        headers = problems.headers_of(self.status) | self.headers
        return Response(body, status_code=self.status, headers=headers)


def not_found(what: str) -> ApiRefused:
    """There is none, or it is another tenant's: nobody learns which."""
    return ApiRefused(404, "not-found", f"There is no such {what}.")


def conflict(error: CircuitError) -> ApiRefused:
    """It cannot be done as things stand."""
    return ApiRefused(409, "refused", " ".join(each for each in (error.detail, error.cure) if each), page=error.page)


class ApiRoute(APIRoute):
    """A route of the API. What its function raises becomes a problem; how the database feels is not the caller's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiRefused as refused:
                return refused.response
            except psycopg.DataError:
                return ApiRefused(422, "invalid", "A value holds what no text of the database can.").response
            except psycopg.errors.QueryCanceled:
                said = "That took too long; ask for less, or for a shorter time."
                return ApiRefused(503, "too-much", said, page="overloaded").response
            except (psycopg.Error, OSError) as error:
                log.warning("the API cannot reach the database: %r", error)
                page = "database-unavailable"
                return ApiRefused(503, "database-unavailable", "The database is away.", page=page).response

        return answer
