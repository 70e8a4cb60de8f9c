"""The same endpoint with nothing around it: FastAPI on uvicorn, one row committed before the answer."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel


class Question(BaseModel):
    message: str


class Answer(BaseModel):
    reply: str


def application(database: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            yield

    pool = AsyncConnectionPool(database, min_size=2, open=False, kwargs={"autocommit": True})
    app = FastAPI(lifespan=lifespan)

    @app.get("/ready")
    async def ready() -> str:
        return "yes"

    @app.post("/api/chat")
    async def chat(question: Question, request: Request) -> Answer:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO asked (body) VALUES (%s)", [question.message])
        return Answer(reply=question.message.upper())

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True)
    options = parser.parse_args()
    uvicorn.run(application(options.database), port=options.port, log_level="error", access_log=False)
