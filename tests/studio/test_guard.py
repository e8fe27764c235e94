"""Who may see the pages."""

from __future__ import annotations

import pytest

pytest.importorskip("nicegui", reason="the studio is optional: pip install distill-studio")
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.testclient import TestClient, WebSocketDenialResponse  # noqa: E402

from distill.studio.guard import COOKIE, Guard  # noqa: E402

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


async def inside(scope, receive, send):
    await PlainTextResponse("inside")(scope, receive, send)


def visitor(hosts=LOCAL, token="", **headers):
    guard = Guard(inside, hosts, token, most=100)
    return TestClient(guard, base_url="http://127.0.0.1:8090", headers=headers, follow_redirects=False)


def test_this_machine_is_let_in_and_loads_nothing_from_elsewhere():
    said = visitor().get("/")
    assert said.text == "inside" and "default-src 'self'" in said.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8090", ""])
def test_another_name_for_this_machine_is_refused(host):
    assert visitor(host=host).get("/").status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_another_site_is_refused(origin):
    assert visitor(origin=origin).get("/").status_code == 403
    assert visitor(origin="http://127.0.0.1:8090").get("/").text == "inside"


def test_a_socket_of_another_site_is_refused():
    with pytest.raises(WebSocketDenialResponse) as refused:
        visitor(origin="http://evil.example").websocket_connect("/socket").__enter__()
    assert refused.value.status_code == 403


@pytest.mark.parametrize("given", ["", "?token=", "?token=wrong", "?token=secre", "?token=%C3%A9"])
def test_without_the_token_nothing_is_shown(given):
    assert visitor(hosts=None, token="secret").get(f"/{given}").status_code == 401


def test_the_token_is_given_once_and_leaves_the_address():
    outside = visitor(hosts=None, token="secret", host="machine:8090")
    entered = outside.get("/runs?token=secret")
    assert entered.status_code == 303 and "token" not in entered.headers["location"]
    assert "HttpOnly" in entered.headers["set-cookie"] and "SameSite=strict" in entered.headers["set-cookie"]
    outside.cookies.clear()
    assert outside.get("/", headers={"cookie": f"{COOKIE}=secret"}).text == "inside"


@pytest.mark.parametrize("length", ["101", "x", "-1"])
def test_a_body_that_is_too_large_is_refused_unread(length):
    said = visitor().post("/", content=b"", headers={"content-length": length})
    assert said.status_code == 413


def test_a_body_that_does_not_say_how_large_it_is_is_refused():
    assert visitor().post("/", content=iter([b"a"])).status_code == 413
    assert visitor().post("/", content=b"a" * 100).text == "inside"
