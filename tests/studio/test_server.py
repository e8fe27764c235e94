"""Where the studio listens, and what it serves."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

pytest.importorskip("nicegui", reason="the studio is optional: pip install distill-studio")
from distill.core.errors import RecipeError  # noqa: E402
from distill.studio.server import address, is_local, listening  # noqa: E402


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.0.1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.9", False), ("machine", False), ("127.0.0.1.example", False)],
)  # fmt: skip
def test_only_loopback_goes_without_a_token(host, local):
    assert is_local(host) is local


def test_a_taken_port_is_told(tmp_path):
    with listening("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        assert address("127.0.0.1", door, "") == f"http://127.0.0.1:{port}/"
        assert address("127.0.0.1", door, "a") == f"http://127.0.0.1:{port}/?token=a"
        with pytest.raises(RecipeError, match="give another --port"):
            listening("127.0.0.1", port)


@pytest.mark.parametrize("path", ["one/recipe.yaml", "../secret.png", "%2e%2e/secret.png", "one/none.png", "one"])
def test_nothing_but_what_is_looked_at_leaves_the_folder(studio, path):
    address, root = studio
    (root.parent / "secret.png").touch()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/files/{path}", timeout=30)
    with urllib.request.urlopen(f"{address}/files/one/previews/step-50.png", timeout=30) as served:
        assert served.headers["content-type"] == "image/png"
