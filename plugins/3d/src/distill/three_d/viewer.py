"""A scene in the browser, on viser: `python -m distill.three_d.viewer scene.ply`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError
from distill.three_d.files import covariances, read_ply
from distill.three_d.render import Scene, checked
from distill.three_d.starts import FLAT

START = (0.0, 0.6, 3.0)
"""Where a visitor's camera stands at first."""


def serve(scene: Scene, *, host: str = "127.0.0.1", port: int = 8080) -> Any:
    """Show a scene at `http://host:port`; colours that change with the direction are shown as they are on average.

    Returns:
        viser's server, which runs until its `stop()`.

    Raises:
        DistillError: viser is not installed.
    """
    try:
        import viser
    except ImportError as error:
        raise DistillError("the viewer needs viser: pip install 'distill-3d[viewer]'") from error
    parts = {name: value.detach().cpu().float() for name, value in checked(scene).items()}
    server = viser.ViserServer(host=host, port=port, verbose=False)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    server.scene.set_up_direction("+y")
    server.scene.add_gaussian_splats(
        "/scene", centers=parts["means"].numpy(), covariances=covariances(parts).numpy(),
        rgbs=(0.5 + FLAT * parts["sh0"][:, 0]).clamp(0, 1).numpy(),
        opacities=parts["opacities"].sigmoid()[:, None].numpy(),
    )  # fmt: skip

    @server.on_client_connect
    def _(client: Any) -> None:
        client.camera.position, client.camera.look_at = START, (0.0, 0.0, 0.0)

    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """Show a PLY file until somebody presses Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a scene as PLY")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    asked = parser.parse_args(arguments)
    try:
        server = serve(read_ply(asked.path), host=asked.host, port=asked.port)
    except DistillError as error:
        parser.exit(error.exit_code, f"error: {error}\n")
    print(f"{asked.path} at http://{asked.host}:{server.get_port()}; Ctrl-C ends it", flush=True)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
