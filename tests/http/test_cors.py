"""`serving.http.cors`: which web pages may call the service."""

import asyncio
from typing import Any

import httpx
import pytest

from serving.http.cors import allow_origins
from serving.settings import Settings

PAGE = "https://app.example"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"1")]})
    await send({"type": "http.response.body", "body": b"{}"})


def ask(origins: str, method: str, **headers: str) -> httpx.Response:
    app = allow_origins(answer, Settings(cors_origins=origins).cors_origin_names)

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:  # type: ignore[arg-type]
            return await client.request(method, "/v1/predict", headers=headers)

    return asyncio.run(main())


def test_a_page_of_an_allowed_origin_may_read_the_answer():
    response = ask(f"https://other.example, {PAGE}", "POST", Origin=PAGE)
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "X-Model-Version" in response.headers["access-control-expose-headers"]
    assert response.headers["vary"] == "Origin"


def test_one_of_another_origin_may_not():
    assert "access-control-allow-origin" not in ask(PAGE, "POST", Origin="https://evil.example").headers


def test_every_page_may_where_that_is_set():
    assert ask("*", "POST", Origin=PAGE).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("origin", "status"), [(PAGE, 200), ("https://evil.example", 400)])
def test_a_browser_asks_before_it_posts_json(origin: str, status: int):
    wanted = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, content-encoding, x-model-version, x-request-id, "
        "x-request-timeout, x-routing-key",
    }
    response = ask(PAGE, "OPTIONS", Origin=origin, **wanted)
    assert response.status_code == status
    assert ("access-control-allow-origin" in response.headers) is (status == 200)
