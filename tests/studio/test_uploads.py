"""What a visitor brings."""

from __future__ import annotations

import io
import struct
import wave
import zlib

import pytest
from PIL import Image

pytest.importorskip("nicegui", reason="the studio is optional: pip install distill-studio")
from distill.core.errors import DistillError  # noqa: E402
from distill.core.registry import default_registry  # noqa: E402
from distill.studio import uploads  # noqa: E402


def picture(size=(40, 40), kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind)
    return file.getvalue()


def sound(seconds=1, rate=8000):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * rate * seconds))
    return file.getvalue()


def bomb():
    """A PNG of a few bytes that promises 60,000 by 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("name", ["a.png", "../../a.PNG", "/etc/passwd.png"])
def test_a_file_lies_where_its_content_says(tmp_path, name):
    own = uploads.keep(name, picture(), tmp_path / "up")
    assert own == uploads.keep("b.png", picture(), tmp_path / "up") and own.parent == tmp_path / "up"
    assert [path.name for path in own.iterdir()] == ["upload.png"]
    assert {path.name for path in tmp_path.rglob("*")} == {"up", own.name, "upload.png"}


def test_a_sound_is_kept(tmp_path):
    assert (uploads.keep("a.wav", sound(), tmp_path) / "upload.wav").is_file()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.exe", b"MZ"), ("a", b""), ("a.svg", b"<svg/>"), ("a.png", b""), ("a.png", picture()[:50]),
        ("a.png", bomb()), ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), ("a.jpg", sound()),
        ("a.wav", picture()), ("a.wav", sound()[:20]), ("a.wav", sound(seconds=uploads.SECONDS + 1, rate=100)),
    ],
)  # fmt: skip
def test_what_is_not_what_it_says_leaves_nothing_behind(tmp_path, name, content):
    with pytest.raises(DistillError):
        uploads.keep(name, content, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LIMIT", 10)
    with pytest.raises(DistillError, match="at most"):
        uploads.keep("a.png", picture(), tmp_path)


def test_a_dataset_reads_it_as_a_node(tmp_path):
    registry = default_registry()
    own = uploads.keep("a.png", picture(), tmp_path)
    assert "picture-folder" in uploads.datasets(registry)
    node = uploads.node("picture-folder", own, registry)
    assert node == {"data": {"name": "picture-folder", "folder": str(own)}}
    assert own.with_name(f"{own.name}.png").is_file()
