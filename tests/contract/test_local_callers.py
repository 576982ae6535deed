"""A service without keys on this machine alone: pages of other sites, which a browser here would let call, are refused."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:9000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "evil.example@127.0.0.1"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_host_and_origin_must_be_of_this_machine(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    reply = client.get("/v1/models", headers=headers)
    assert reply.status_code == status
    if status == 403:
        assert reply.json()["code"] == "forbidden"
        assert "TRACEGRAD_" in reply.json()["hint"]


def test_a_text_body_from_another_site_is_refused_before_it_is_read(client: httpx.Client, water_xyz: str) -> None:
    headers = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    assert client.post("/v1/predict?format=xyz", content=water_xyz, headers=headers).status_code == 403
    del headers["Origin"]
    assert client.post("/v1/predict?format=xyz", content=water_xyz, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("settings", "host", "passes"),
    [
        (Settings(host="0.0.0.0"), "tracegrad.example", True),
        (Settings(host="0.0.0.0", allowed_hosts=("localhost",)), "tracegrad.example", False),
        (Settings(allowed_hosts=("tracegrad.example",)), "tracegrad.example:8000", True),
        (Settings(allowed_hosts=("*",)), "tracegrad.example", True),
    ],
)
def test_the_operator_says_which_names_are_the_services(settings: Settings, host: str, passes: bool) -> None:
    app: FastAPI = create_app(settings)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return (await client.get("/health/live", headers={"Host": host})).status_code

    assert (asyncio.run(ask()) == 200) is passes
