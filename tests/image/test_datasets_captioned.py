"""Captioned pictures of every origin, prompts alone, buckets, and one clear message for whatever is wrong."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from itertools import islice
from typing import ClassVar

import pytest
import torch
from PIL import Image

from distill.core import batches
from distill.core.errors import DataError
from distill.image.datasets_captioned import CaptionedFolder, HubDataset, Prompts, WebDataset, buckets, nearest
from distill.image.pipeline import LatentImage, Pipeline
from distill.image.toys import save
from distill.methods.captions import ENCODERS, TextEncoder


class Letters(TextEncoder):
    """Says how long a caption is; `asked` counts the captions."""

    asked: ClassVar[list[str]] = []

    def _files(self):
        return []

    def _encode(self, captions):
        self.asked.extend(captions)
        length = torch.tensor([float(len(caption)) for caption in captions])
        return {"text": length[:, None, None].expand(-1, self.tokens, 2), "pooled": length[:, None]}


@pytest.fixture(autouse=True)
def letters(monkeypatch, tmp_path):
    monkeypatch.setitem(ENCODERS, "letters", Letters)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    Letters.asked.clear()


def png(size=(16, 16), colour="red"):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """A folder with pictures of three shapes and their captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in {"tall": (16, 32), "square": (16, 16), "wide": (32, 16)}.items():
        (folder / f"{name}.png").write_bytes(png(size))
        (folder / f"{name}.txt").write_text(f"a {name} one\n")
    return folder


def opened(folder, **options):
    return CaptionedFolder(folder=folder, **{"size": 16, "encoder": "letters", **options}).open()


def test_a_folder_with_text_files(pictures):
    data = opened(pictures)
    batch = next(batches(data, 3))
    assert batch.x.shape == (3, 3, 16, 16) and batch.cond["text"].shape == (3, 16, 2)
    assert sorted(batch.cond["pooled"].flatten().tolist()) == [10, 10, 12]
    assert torch.equal(data[0]["x"][:, 0, 0], torch.tensor([1.0, -1, -1]))


def test_a_folder_with_metadata(pictures):
    lines = [{"file_name": f"{name}.png", "text": "x" * n} for n, name in ((3, "wide"), (5, "tall"))]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert [float(sample["pooled"]) for sample in map(opened(pictures).__getitem__, (0, 1))] == [3, 5]


def test_a_caption_is_encoded_once(pictures):
    for name in ("tall", "wide"):
        (pictures / f"{name}.txt").write_text("the same")
    opened(pictures)
    opened(pictures)
    assert sorted(Letters.asked) == ["a square one", "the same"]


def test_batches_of_buckets_hold_one_shape(pictures):
    data = opened(pictures, ratio=2, step=4)
    shapes = [tuple(batch.x.shape) for batch in islice(batches(data, 2), 3)]
    assert sorted(shapes) == [(2, 3, 12, 24), (2, 3, 16, 16), (2, 3, 24, 12)]


def test_buckets_have_about_the_same_area():
    found = buckets(1024, 4, 64)
    assert (1024, 1024) in found and (1152, 896) in found and len(found) == len(set(found))
    assert all(abs(w * h / 1024**2 - 1) < 0.07 and max(w, h) <= 4 * min(w, h) and not w % 64 for w, h in found)
    assert nearest((300, 200), found)[0] > 1024 > nearest((200, 300), found)[0] and buckets(64, 1, 64) == [(64, 64)]
    with pytest.raises(DataError, match="'size' 16 is none"):
        buckets(16, 1.5, 12)


DAMAGE = {
    "empty caption": (lambda folder: (folder / "tall.txt").write_text(" \n"), r"tall.txt is empty: write what"),
    "no caption": (lambda folder: (folder / "tall.txt").unlink(), r"tall.png has no caption: write tall.txt beside"),
    "long caption": (lambda folder: (folder / "tall.txt").write_text("x" * 10_000), "tall.txt has 10,000 characters"),
    "binary caption": (lambda folder: (folder / "tall.txt").write_bytes(b"\xff\xfe\xff"), "tall.txt is no text file"),
    "no picture": (lambda folder: (folder / "tall.png").write_text("hello"), "tall.png is not a readable picture"),
    "tiny": (lambda folder: (folder / "tall.png").write_bytes(png((1, 1))), "tall.png is 1x1 pixels"),
    "empty metadata": (lambda folder: (folder / "metadata.jsonl").touch(), "metadata.jsonl is empty"),
    "odd metadata": (lambda folder: (folder / "metadata.jsonl").write_text("{}"), r"metadata.jsonl:1 is no"),
    "gone": (
        lambda folder: (folder / "metadata.jsonl").write_text('{"file_name": "no.png", "text": "x"}'),
        "there is no such file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("ratio", [1, 2])
def test_what_is_wrong_with_a_folder_is_said_once(pictures, damage, ratio):
    spoil, said = DAMAGE[damage]
    spoil(pictures)
    with pytest.raises(DataError, match=said):
        data = opened(pictures, ratio=ratio, step=8)
        list(map(data.__getitem__, range(len(data))))


def shard(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def web(tmp_path, pattern="*.tar"):
    return WebDataset(shards=str(tmp_path / pattern), size=16, encoder="letters").open()


def test_tar_shards(tmp_path):
    shard(tmp_path / "0.tar", {"a/1.png": png(), "a/1.txt": b"one", "a/2.seg.png": b"", "notes.md": b"-"})
    shard(tmp_path / "1.tar", {"1.jpg": png(colour="blue"), "1.json": b'{"caption": "seven!!"}'})
    data = web(tmp_path)
    assert [float(data[row]["pooled"]) for row in range(len(data))] == [3, 7]
    assert torch.equal(data[1]["x"][:, 3, 3], torch.tensor([-1.0, -1, 1]))


@pytest.mark.parametrize("members, said", [
    ({"1.png": png()}, r"0.tar:1 has no caption"),
    ({"1.png": png(), "1.txt": b""}, "the caption of .*0.tar:1 is empty"),
    ({"1.png": b"hello", "1.txt": b"one"}, "0.tar:1 is not a readable picture"),
])  # fmt: skip
def test_what_is_wrong_with_a_shard_is_said_once(tmp_path, members, said):
    shard(tmp_path / "0.tar", members)
    with pytest.raises(DataError, match=said):
        web(tmp_path)[0]


def test_what_is_no_shard(tmp_path):
    shard(tmp_path / "0.tgz", {"1.png": png(), "1.txt": b"one"}, "w:gz")
    with pytest.raises(DataError, match="0.tgz is no plain tar"):
        web(tmp_path, "*.tgz")
    with pytest.raises(DataError, match="no file matches"):
        web(tmp_path)


def test_a_dataset_of_the_package_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png(), "path": None}] * 2, "text": ["one", "three"]}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    made.save_to_disk(str(tmp_path / "made"))
    source = HubDataset(path=str(tmp_path / "made"), size=16, encoder="letters")
    data = source.open()
    assert [float(data[row]["pooled"]) for row in range(2)] == [3, 5] and data[0]["x"].shape == (3, 16, 16)
    with pytest.raises(DataError, match="has no column caption; it has image, text"):
        source.model_copy(update={"text": "caption"}).open()


def test_prompts_of_a_list_and_of_a_file(tmp_path):
    (tmp_path / "p.txt").write_text('a cat\n\n{"text": "a tall dog"}\n')
    data = Prompts(prompts=("hi",), file=tmp_path / "p.txt", encoder="letters", tokens=3).open()
    batch = next(batches(data, 3))
    assert batch.x is None and batch.size == 3 and batch.cond["text"].shape == (3, 3, 2)
    assert [float(data[row]["pooled"]) for row in range(3)] == [2, 5, 10]


@pytest.mark.parametrize("content, said", [
    ("", "p.txt is empty: write one prompt a line"), ("a\n" + "x" * 10_000, r"p.txt:2 has 10,000 characters"),
])  # fmt: skip
def test_what_is_wrong_with_prompts_is_said_once(tmp_path, content, said):
    (tmp_path / "p.txt").write_text(content)
    with pytest.raises(DataError, match=said):
        Prompts(file=tmp_path / "p.txt", encoder="letters").open()
    assert not (tmp_path / "cache").exists()


def test_a_cache_of_other_options_is_refused(pictures, tmp_path):
    opened(pictures, cache=tmp_path / "mine")
    with pytest.raises(DataError, match="holds text embeddings that this run cannot use: .* Delete the folder"):
        opened(pictures, cache=tmp_path / "mine", tokens=5)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A toy pipeline, whose encoders and autoencoder serve a source."""
    return save("StableDiffusionPipeline", tmp_path_factory.mktemp("sd"))


def test_latents_and_captions_of_a_pipeline(pictures, pipeline, tmp_path):
    options = {"size": 64, "encoder": str(pipeline), "latents": str(pipeline), "cache": tmp_path / "mine"}
    data = opened(pictures, **options)
    batch = next(batches(data, 3))
    coder = LatentImage(model=str(pipeline))
    plain = torch.stack([opened(pictures, size=64)[row]["x"] for row in range(3)])
    kept = torch.stack([data[row]["x"] for row in range(3)])
    assert torch.allclose(kept, coder.code(plain), atol=1e-2) and batch.x.shape == kept.shape
    assert batch.cond["text"].shape[1:] == Pipeline(model=str(pipeline)).build().null["text"].shape


def test_latents_of_another_autoencoder_are_refused(pictures, pipeline, tmp_path):
    other = shutil.copytree(pipeline, tmp_path / "other")
    options = {"size": 64, "cache": tmp_path / "mine", "latents": str(other)}
    opened(pictures, **options)
    weights = other / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match="holds latents that this run cannot use: .* Delete the folder"):
        opened(pictures, **options)
