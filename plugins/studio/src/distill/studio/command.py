"""`distill studio`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def studio(
    folder: Annotated[Path, typer.Argument(help="The folder of runs; what the page makes goes there too.")] = Path(
        "runs"
    ),
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8090,
) -> None:
    """Open a local page: plugins, teacher beside student, runs, scenes, sound, pipelines.

    Whoever sees it can do what this command line can. Only this machine does, unless --host says otherwise; the address
    that is printed then holds a token, without which nothing is shown.
    """
    import secrets

    from distill.studio.server import address, is_local, listening, serve

    token = "" if is_local(host) else secrets.token_urlsafe(24)
    with listening(host, port) as door:
        typer.echo(f"studio of {folder} at {address(host, door, token)}; Ctrl-C ends it")
        serve(folder.absolute(), door, token)
