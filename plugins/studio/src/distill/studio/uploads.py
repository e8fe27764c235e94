"""Files that a visitor brings: small enough, of a known type, and decoded before anybody uses them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.core import DataSource, Modality
from distill.core.errors import DataError
from distill.core.registry import Registry

LIMIT, PIXELS, SECONDS = 32 * 2**20, 40_000_000, 600
"""Most bytes of a file, pixels of a picture, and seconds of a sound."""
FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""What Pillow is asked to read: no format that runs another program."""


def keep(name: str, content: bytes, folder: Path) -> Path:
    """Put a file where its content says; it is called `upload`, whatever its name was.

    Returns its folder, in which it is alone.

    Raises:
        DataError: it is too large, of an unknown type, or not what its name says.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in CHECKS:
        raise DataError(f"'{suffix or name[:40]}' is no type that can be brought: {', '.join(CHECKS)}")
    if len(content) > LIMIT:
        raise DataError(f"the file has {len(content) / 2**20:.0f} MiB, and at most {LIMIT / 2**20:.0f} can be brought")
    own = folder / hashlib.sha256(content).hexdigest()[:16]
    aside = own.with_name(f".{own.name}{suffix}")
    folder.mkdir(parents=True, exist_ok=True)
    aside.write_bytes(content)
    try:
        CHECKS[suffix](aside)
        own.mkdir(exist_ok=True)
        aside.replace(own / f"upload{suffix}")
    finally:
        aside.unlink(missing_ok=True)
    return own


def _picture(path: Path) -> None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as found:
                if found.width * found.height > PIXELS:
                    raise DataError(f"the picture has more than {PIXELS / 1e6:.0f} million pixels: cut it into parts")
                found.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError("the picture cannot be read: save it again as PNG or JPEG") from error


def _sound(path: Path) -> None:
    try:
        import soundfile
    except ImportError as error:
        raise DataError("sounds need soundfile: pip install distill-audio") from error
    try:
        with soundfile.SoundFile(path) as found:
            if found.frames > SECONDS * found.samplerate:
                raise DataError(f"the sound lasts more than {SECONDS} seconds: cut it")
            for _ in found.blocks(2**16):
                pass  # decoded to its end, in little memory
    except (RuntimeError, ValueError, TypeError) as error:
        raise DataError("the sound cannot be read: save it again as WAV or FLAC") from error


CHECKS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((".bmp", ".jpeg", ".jpg", ".png", ".webp"), _picture),
    **dict.fromkeys((".flac", ".ogg", ".wav"), _sound),
}
"""Types that can be brought, and who decodes them."""


def datasets(registry: Registry) -> list[str]:
    """The datasets that read a folder of files."""
    found = [(entry.name, kind) for entry, kind in registry.loaded("dataset") if entry.component.modality]
    return [name for name, kind in found if "folder" in kind.model_fields]


def node(dataset: str, folder: Path, registry: Registry) -> dict[str, Any]:
    """The node of a pipeline that holds what was brought; a dataset checks its files before, and shows one beside them.

    Raises:
        DistillError: they are none of that dataset.
    """
    entry = registry.find("dataset", dataset)
    kind: Any = entry.load()
    source: DataSource = kind(folder=folder)
    sample = source.open()[0]
    modality: Any = registry.load("modality", entry.component.modality)
    if isinstance(made := modality(), Modality):
        made.preview(sample["x"][None], folder.with_name(f"{folder.name}.png"))
    return {"data": {"name": dataset, "folder": str(folder)}}
