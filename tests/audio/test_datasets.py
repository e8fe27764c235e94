"""Music that ships, folders of recordings, and what is wrong with files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from distill.audio import sound
from distill.audio.datasets import AudioFolder, Chorales, bits, music
from distill.core.data import Worded
from distill.core.errors import DataError


def tone(seconds=1.0, rate=16_000, channels=1, loud=0.3):
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([loud * np.sin(2 * np.pi * 440 * (n + 1) * time) for n in range(channels)], 1)


def folder(tmp_path, **options):
    return AudioFolder(folder=tmp_path, **{"window": 0.5, **options}).open()


def test_chorales_are_windows_with_conditions():
    data = Chorales(conditions=("label", "tempo", "chords", "seconds", "text"), text=5).open()
    sample = data[7]
    assert sample["x"].shape == (64, 32) and sample["chords"].shape == (64, 12) and sample["text"].shape == (8, 5)
    assert isinstance(data, Worded) and data.captions[7].split(",")[0] in music().instruments
    assert torch.equal(data.__getitems__([3, 7])["x"][1], sample["x"])
    assert 0.95 < float(music().latents.std()) < 1.05


def test_splits_share_no_piece_and_windows_move_on():
    train, test = (Chorales().open(split) for split in ("train", "test"))
    assert len(train) == 310 * 49 and len(test) == 30 * 49
    assert torch.equal(train[1]["x"][:60], train[0]["x"][4:])


def test_chords_are_hidden_in_a_share_of_the_windows():
    data = Chorales(hide=0.5).open()
    told = data.__getitems__(range(400))["chords"].sum((1, 2)) > 0
    assert 0.4 < float(told.float().mean()) < 0.6
    assert bits(torch.tensor([5])).tolist() == [[1, 0, 1] + [0] * 9]


def test_chorales_as_sound():
    assert Chorales(form="sound", tokens=4).open()[0]["x"].shape == (1, 4096)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="256 tokens each"):
        Chorales(tokens=300).open()
    with pytest.raises(DataError, match="needs a width"):
        Chorales(conditions=("text",)).open()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("rate", [8_000, 96_000])
def test_depth_and_rate_do_not_matter(tmp_path, subtype, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate=rate), rate, subtype=subtype)
    heard = folder(tmp_path)[0]["x"]
    truth = torch.tensor(tone()[:8000, 0]).float()
    assert heard.shape == (1, 8000) and (heard[0, 500:7500] - truth[500:7500]).abs().max() < 0.02


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
def test_channels_are_mixed_or_doubled(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", tone(channels=2), 16_000)
    soundfile.write(tmp_path / f"b.{suffix}", tone(), 16_000)
    assert folder(tmp_path)[0]["x"].shape == (1, 8000)
    both = folder(tmp_path, channels=2)
    assert both[0]["x"].shape == (2, 8000) and torch.equal(*both[2]["x"])


def test_captions_tempo_and_latents(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2), 16_000)
    soundfile.write(tmp_path / "b.wav", tone(2), 16_000)
    (tmp_path / "a.txt").write_text("a fiddle\n")
    lines = [{"file": "a.wav", "tempo": 90}, {"file": "b.wav", "text": "a drum", "tempo": 120}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = folder(tmp_path, tempo=True, text=4, form="latents", window=0.64)
    assert data.captions == ["a fiddle"] * 3 + ["a drum"] * 3
    sample = data[4]
    assert sample["x"].shape == (10, 32) and float(sample["tempo"]) == pytest.approx(1.2)
    assert int(sample["label"]) == 0 and sample["seconds"].tolist() == pytest.approx([0.064, 0.2])


BAD = {
    "silent": (lambda file: soundfile.write(file, np.zeros(16_000), 16_000), "is silent"),
    "clipped": (lambda file: soundfile.write(file, np.sign(tone()), 16_000), "is clipped: 100 %"),
    "empty": (lambda file: soundfile.write(file, np.zeros(0), 16_000), "holds no samples"),
    "nothing": (lambda file: file.write_bytes(b""), "not a readable file of sound"),
    "text": (lambda file: file.write_text("this is no sound, but a text"), "not a readable file of sound"),
    "short": (lambda file: soundfile.write(file, tone(0.1), 16_000), "lasts 0.10 s"),
    "numbers": (
        lambda file: soundfile.write(file, np.full(16_000, np.nan), 16_000, subtype="FLOAT"), "that are no numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_nothing_can_be_learnt_from_is_told_in_one_sentence(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path / "a.wav")
    with pytest.raises(DataError, match=message) as caught:
        folder(tmp_path)
    assert "a.wav" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_file_is_read_to_its_end_or_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2), 16_000)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    assert len(folder(tmp_path)) == 1
    (tmp_path / "a.wav").write_bytes(whole[:30])
    with pytest.raises(DataError, match=r"a\.wav"):
        folder(tmp_path)


def test_clipped_files_can_be_let_in(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sign(tone()), 16_000)
    assert len(folder(tmp_path, refuse_clipped=False)) == 2


def test_folders_and_metadata_that_are_wrong(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        AudioFolder(folder=tmp_path / "no").open()
    with pytest.raises(DataError, match="holds no recordings"):
        folder(tmp_path)
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    with pytest.raises(DataError, match="says no tempo"):
        folder(tmp_path, tempo=True)
    with pytest.raises(DataError, match="set rate: 16000"):
        folder(tmp_path, form="latents", rate=8000)
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(DataError, match="metadata.jsonl:1"):
        folder(tmp_path)


def test_what_is_written_is_read_again(tmp_path):
    loud = torch.tensor(tone(loud=2.0).T).float()
    again = sound.read(sound.write(loud, tmp_path / "x" / "a.wav", 16_000), 16_000)
    assert (again - loud / 2).abs().max() < 1e-3
