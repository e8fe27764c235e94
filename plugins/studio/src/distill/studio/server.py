"""The server of the pages."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from nicegui import ui

from distill.core.errors import RecipeError
from distill.studio import jobs, pages, uploads, views
from distill.studio.guard import Guard

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine for itself."""


def is_local(host: str) -> bool:
    """Whether only this machine can call an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A door that is open.

    Raises:
        RecipeError: somebody else holds it, or the machine has no such address.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RecipeError(f"{host}:{port} cannot be listened at ({error.strerror}): give another --port") from error


def address(host: str, door: socket.socket, token: str) -> str:
    """What a visitor opens."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{door.getsockname()[1]}/{f'?token={token}' if token else ''}"


def application(root: Path, token: str, local: frozenset[str] | None = LOCAL) -> Guard:
    """Everything behind the guard."""
    pages.STUDIO.root = root
    root.mkdir(parents=True, exist_ok=True)
    server = FastAPI(openapi_url=None)
    server.include_router(views.router)

    @server.get("/files/{path:path}")
    def file(path: str) -> Response:
        found = (root / path).resolve()
        if not found.is_relative_to(root.resolve()) or found.suffix not in pages.MEDIA or not found.is_file():
            return Response("there is no such file to look at", 404)
        return FileResponse(found)

    ui.run_with(server, title="distill studio", dark=None, show_welcome_message=False, favicon=pages.ICON,
                reconnect_timeout=60)  # fmt: skip
    return Guard(server, None if token else local, token, uploads.LIMIT + 2**16)


def serve(root: Path, door: socket.socket, token: str) -> None:
    """Answer until somebody presses Ctrl-C."""
    own = {str(door.getsockname()[0])}
    config = uvicorn.Config(application(root, token, LOCAL | own), log_level="warning",
                            server_header=False, timeout_graceful_shutdown=2)  # fmt: skip
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])
    finally:
        jobs.stop_all()
        views.stop_all()
