"""Live views of files, each served on this machine by the modality that wrote the file, and passed on from here."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter, Response, WebSocket
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from distill.core import Modality
from distill.core.registry import default_registry

FIRST, MOST = 8700, 4
"""The port from which free ones are sought, and how many views live at a time."""
SERVERS: dict[Path, Any] = {}
"""Servers by the files that they show, the oldest first."""
router = APIRouter()


@lru_cache
def _modalities() -> list[Modality]:
    return [kind() for _, kind in default_registry().loaded("modality") if kind.live is not Modality.live]


def can_view(path: Path) -> bool:
    """Whether some modality shows such files live."""
    return any(known.suffix == path.suffix for known in _modalities())


def view(path: Path) -> str:
    """Where a file is seen from all sides.

    Raises:
        DistillError: it cannot be read, or the viewer is not installed.
    """
    if path not in SERVERS:
        found = (known.live(path, FIRST) for known in _modalities() if known.suffix == path.suffix)
        SERVERS[path] = next(server for server in found if server is not None)
        for old in list(SERVERS)[:-MOST]:
            SERVERS.pop(old).stop()
    return f"/view/{SERVERS[path].get_port()}/"


def stop_all() -> None:
    """End every view."""
    while SERVERS:
        SERVERS.popitem()[1].stop()


def _known(port: int) -> bool:
    return any(server.get_port() == port for server in SERVERS.values())


@router.get("/view/{port}/{rest:path}")
async def page(port: int, rest: str) -> Response:
    """A file of a viewer's page."""
    if not _known(port):
        return Response("this view has ended: open it again", 404)
    async with httpx.AsyncClient(trust_env=False) as client:
        got = await client.get(f"http://127.0.0.1:{port}/{rest}")
    return Response(got.content, got.status_code, media_type=got.headers.get("content-type"))


@router.websocket("/view/{port}")
async def talk(socket: WebSocket, port: int) -> None:
    """What a viewer's page and its server say to each other."""
    if not _known(port):
        return await socket.close(1008)
    offered = [Subprotocol(each) for each in socket.scope["subprotocols"]]
    async with connect(f"ws://127.0.0.1:{port}", subprotocols=offered or None, max_size=None, proxy=None) as inner:
        await socket.accept(inner.subprotocol)
        ways = [asyncio.create_task(_outwards(socket, inner)), asyncio.create_task(_inwards(socket, inner))]
        _, waiting = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in waiting:
            way.cancel()
    return None


async def _outwards(socket: WebSocket, inner: Any) -> None:
    async for said in inner:
        await (socket.send_bytes if isinstance(said, bytes) else socket.send_text)(said)


async def _inwards(socket: WebSocket, inner: Any) -> None:
    while (said := await socket.receive())["type"] != "websocket.disconnect":
        await inner.send(said.get("bytes") or said.get("text", ""))
