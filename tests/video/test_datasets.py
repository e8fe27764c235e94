"""Clips that follow from seed and number, sound that moves them, and folders whose faults are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.core import commands
from distill.core.data import batches
from distill.core.errors import DataError
from distill.image import toys
from distill.methods.pipelines import quiet
from distill.methods.sheets import write_mp4
from distill.video.audio import chorale, loudness, track
from distill.video.datasets import DancingDigits, MovingDigits, VideoFolder, decoded
from distill.video.texts import PipelineTexts
from distill.video.wrapped import Wan


def clip(path, frames=10, size=(40, 60), shade=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = torch.linspace(0, 255, frames) if shade is None else torch.full((frames,), shade)
    write_mp4(shades.byte()[:, None, None, None].expand(frames, *size, 3), path, 12)
    return path


def test_a_record_depends_on_the_seed_and_its_number_alone():
    few, many = MovingDigits(count=8).open(), MovingDigits(count=64).open()
    assert torch.equal(few[5]["x"], many[5]["x"]) and len(few) == 8
    assert torch.equal(many.__getitems__([3, 5])["x"][1], few[5]["x"])
    assert not torch.equal(few[5]["x"], MovingDigits(count=8, seed=1).open()[5]["x"])


@pytest.mark.parametrize("size", [16, 32])
def test_digits_move_evenly_and_come_back(size):
    """Motion to the right by whole pixels is a roll of the first frame."""
    source = MovingDigits(size=size, speed=(1, 1), directions=1, frames=size + 1)
    x = source.open()[0]["x"]
    assert x.shape == (size + 1, 1, size, size) and x.min() == -1 and x.max() == 1
    assert torch.equal(x[1], x[0].roll(1, -1)) and torch.equal(x[size], x[0])


def test_speed_and_label_are_conditions_and_splits_share_no_digit():
    source = MovingDigits(frames=3)
    batch = next(batches(source.open(), 64))
    assert set(batch.cond) == {"label", "speed"}
    assert 0.5 <= float(batch.cond["speed"].min()) and float(batch.cond["speed"].max()) <= 2
    assert not set(source.known("train").tolist()) & set(source.known("test").tolist())


def test_sound_moves_the_digits():
    source = DancingDigits(directions=1, speed=(0, 3), count=64)
    fields = source.open().__getitems__(range(64))
    assert fields["audio"].shape == (64, 12, 8) and fields["reference"].shape == (64, 1, 8, 8)
    way = (3 * loudness(fields["audio"])).cumsum(1)
    shift = (way[:, -1] - way[:, 0]).round().long()
    moved = torch.stack([x[0].roll(int(n), -1) for x, n in zip(fields["x"], shift, strict=True)])
    assert (moved - fields["x"][:, -1]).flatten(1).abs().amax(1).eq(0).float().mean() > 0.4  # else one pixel off
    assert float(loudness(fields["audio"]).std()) > 0.15


def test_a_track_that_is_too_short_or_broken_is_named(tmp_path):
    import soundfile

    short, broken = tmp_path / "short.wav", tmp_path / "broken.wav"
    soundfile.write(short, np.zeros(8000, dtype="float32"), 16_000)
    broken.write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"short.wav lasts 0.50 s, 6 frames at 12 a second, and the clip has 12"):
        DancingDigits(file=short).open()
    with pytest.raises(DataError, match=r"broken.wav is not a readable track"):
        DancingDigits(file=broken).open()


def test_features_of_a_track_do_not_depend_on_its_volume(tmp_path):
    import soundfile

    samples, rate = soundfile.read(chorale())
    soundfile.write(tmp_path / "soft.wav", samples / 4, rate, subtype="FLOAT")
    loud, soft = track(chorale(), 12.0, 8), track(tmp_path / "soft.wav", 12.0, 8)
    assert loud.shape == (264, 8) and float((loud - soft).abs().max()) < 0.05


def test_a_folder_of_clips_in_windows_with_captions(tmp_path):
    clip(tmp_path / "a.mp4"), clip(tmp_path / "b" / "c.mp4", 24)
    (tmp_path / "a.txt").write_text("it gets light\n")
    data = VideoFolder(folder=tmp_path, frames=5, height=16, width=24).open()
    assert len(data) == 2 + 4 and data[0]["x"].shape == (5, 3, 16, 24) and data.captions == ["", "it gets light"]
    assert [int(data[n]["label"]) for n in range(6)] == [1, 1, 0, 0, 0, 0]
    assert data[0]["x"][0].mean() < -0.9 and data[1]["x"][-1].mean() > 0.9
    assert len(VideoFolder(folder=tmp_path, frames=5, every=2).open()) == 1 + 2


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """The folder of a Wan pipeline with its own classes, at toy size and without a decoder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    folder = tmp_path_factory.mktemp("wan")
    net = WanTransformer3DModel(**{**Wan.example["config"], "text_dim": 16})
    with quiet():
        pipe = WanPipeline(toys.tokenizer(), toys.t5("UMT5"), None, FlowMatchEulerDiscreteScheduler(), net)
        pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def captioned(tmp_path):
    for name, shade in (("night", 10), ("day", 240)):
        clip(tmp_path / "clips" / f"{name}.mp4", 8, (16, 16), shade).with_suffix(".txt").write_text(f"it is {name}\n")
    return tmp_path / "clips"


def test_captions_become_what_a_pipelines_encoder_says_once_and_for_all(captioned, wan, tmp_path, monkeypatch):
    options = {"folder": captioned, "frames": 4, "height": 16, "width": 16, "encoder": str(wan), "tokens": 12}
    data = VideoFolder(**options, cache=tmp_path / "cache").open()
    assert data.captions == ["it is day"] * 2 + ["it is night"] * 2 and set(data[0]) == {"x", "text"}
    said = PipelineTexts(wan, 12)(["it is night"])["text"][0]
    torch.testing.assert_close(data[3]["text"], said, atol=1e-2, rtol=1e-2)
    monkeypatch.setattr(PipelineTexts, "_encode", None)
    assert torch.equal(VideoFolder(**options, cache=tmp_path / "cache").open()[0]["text"], data[0]["text"])


def test_a_network_of_text_learns_from_captioned_clips(captioned, wan, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    size = "size: [16, 16], frames: 4, words: 12, steps: 2, guidance: 2.0"
    windows = (
        f"{{name: video-folder, folder: {captioned}, frames: 4, height: 16, width: 16, encoder: {wan}, tokens: 12}}"
    )
    (tmp_path / "recipe.yaml").write_text(
        f"method: {{name: causvid, steps: 2, routes: 0, critic_updates: 1, times: [1.0], reach: {{chunk: 2}}}}\n"
        f"teacher: {{name: wan, model: {wan}, {size}}}\nbatch_size: 2\n"
        f"data: {windows}\n"
    )
    commands.train(tmp_path / "recipe.yaml", out=tmp_path / "run")
    commands.sample(str(tmp_path / "run"), n=1, out=tmp_path / "samples", prompts=["it is night"])
    assert (tmp_path / "samples" / "sample-0000.mp4").stat().st_size


def test_captions_need_clips_that_have_one_and_a_pipeline_that_is_known(captioned, wan, tmp_path):
    (captioned / "day.txt").unlink()
    with pytest.raises(DataError, match=r"day.mp4 has no caption: write day.txt beside it"):
        VideoFolder(folder=captioned, frames=4, encoder=str(wan)).open()
    with pytest.raises(DataError, match=r"is no folder of a pipeline: model_index.json cannot be read"):
        PipelineTexts(tmp_path)(["a cat"])
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(DataError, match="is a FluxPipeline, and texts are encoded by WanPipeline"):
        PipelineTexts(tmp_path)(["a cat"])


def test_frames_are_scaled_to_cover_and_cropped(tmp_path):
    frames = torch.zeros(2, 20, 60, 3, dtype=torch.uint8)
    frames[:, :, 20:40] = 255
    write_mp4(frames, tmp_path / "middle.mp4", 12)
    assert decoded(tmp_path / "middle.mp4", 20, 20, mode="gray").float().mean() > 240


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"hello"), r"x.mp4 is not a readable video: .* Mend or remove it"),
        (lambda path: path.write_bytes(clip(path).read_bytes()[:300]), r"x.mp4 is not a readable video"),
        (lambda path: clip(path, 3), r"x.mp4 is too short: it has 3 frames \(every 1\), and a window has 5"),
    ],
)
def test_a_clip_that_cannot_be_used_is_named(tmp_path, make, said):
    make(tmp_path / "x.mp4")
    with pytest.raises(DataError, match=said):
        VideoFolder(folder=tmp_path, frames=5).open()


def test_a_file_without_pictures_is_named(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "x.wav", np.zeros(800), 8000)
    (tmp_path / "x.wav").rename(tmp_path / "x.avi")
    with pytest.raises(DataError, match=r"x.avi has no frames"):
        VideoFolder(folder=tmp_path).open()


def test_folders_without_clips(tmp_path):
    with pytest.raises(DataError, match="holds no clips"):
        VideoFolder(folder=tmp_path).open()
    with pytest.raises(DataError, match="is no folder"):
        VideoFolder(folder=tmp_path / "none").open()
