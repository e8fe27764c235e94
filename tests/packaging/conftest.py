"""Wheels of all packages, and fresh environments to install them into, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"core": ROOT / "core", "three_d": ROOT / "plugins" / "3d"} | {
    name: ROOT / "plugins" / name for name in ("methods", "image", "video", "audio", "pipeline", "studio")
}

EDITABLE = "import sys, hatchling.build; print(hatchling.build.build_editable(sys.argv[1]))"


def call(*command: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the environment of this process, less what would lead it astray."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DISTILL_", "PYTHONPATH"))}
    settings = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean | settings | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def build(package: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build a package's wheel into a folder, with what is installed."""
    return call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", into, package, cwd=into.parent)


@dataclass
class Env:
    """A virtual environment."""

    path: Path

    def python(self, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        """Run its interpreter, away from the repository."""
        return call(self.path / "bin/python", *arguments, cwd=self.path, **env)

    def distill(self, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        """Run its console script."""
        return call(self.path / "bin/distill", *arguments, cwd=self.path, **env)

    def install(self, *wheels: Path) -> None:
        """Install wheels in one call of pip."""
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.path / "bin/python",
            "install",
            "-q",
            "--no-deps",
        )
        done = call(*pip, *wheels)
        assert done.returncode == 0, done.stderr

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next(self.path.glob("lib/python*/site-packages"))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The regular wheel of each package."""
    folders = {name: tmp_path_factory.mktemp("wheels") / name for name in PACKAGES}
    for name, folder in folders.items():
        done = build(PACKAGES[name], folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return {name: next(folder.glob("*.whl")) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def editables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel that `pip install -e` builds and installs (PEP 660), for each package."""
    folders = {name: tmp_path_factory.mktemp("editable") for name in PACKAGES}
    for name, folder in folders.items():
        done = call(sys.executable, "-c", EDITABLE, folder, cwd=PACKAGES[name])
        assert done.returncode == 0, done.stderr
    return {name: next(folder.glob("*.whl")) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to everything that is installed here, except what is ours."""
    folder = tmp_path_factory.mktemp("dependencies")
    for path in sys.path:
        for item in Path(path).iterdir() if path.endswith("site-packages") else ():
            ours = item.name.startswith(("distill", "_distill")) or item.suffix == ".pth"
            if not ours and not (folder / item.name).exists():
                (folder / item.name).symlink_to(item)
    return folder


@pytest.fixture
def fresh(tmp_path: Path, dependencies: Path) -> Env:
    """A new environment that has our dependencies, and nothing of ours."""
    env = Env(tmp_path / "env")
    venv.create(env.path, with_pip=False, symlinks=True)
    (env.packages / "dependencies.pth").write_text(f"{dependencies}\n")
    assert env.python("-c", "import typer, distill").returncode != 0
    return env


@pytest.fixture(name="build")
def _build():  # type: ignore[no-untyped-def]
    """The function that builds a wheel."""
    return build


@pytest.fixture
def packages() -> dict[str, Path]:
    """The folder of each package."""
    return PACKAGES
