"""What people see and hear of sounds."""

from __future__ import annotations

import pytest
import soundfile
import torch
from PIL import Image

from distill.audio.modality import Audio, listening_page
from distill.core.contracts import Way
from distill.core.errors import DataError


def test_waveforms_and_latents_are_written_as_wav(tmp_path):
    modality = Audio(rounds=1)
    stereo = modality.write(0.1 * torch.randn(2, 2, 8000), tmp_path, "a")
    latents = modality.write(torch.randn(1, 4, 32), tmp_path, "b")
    assert [soundfile.info(path).channels for path in (*stereo, *latents)] == [2, 2, 1]
    assert soundfile.info(latents[0]).frames == 4096 and soundfile.info(latents[0]).samplerate == 16_000


def test_a_picture_shows_where_a_tone_is(tmp_path):
    time = torch.arange(16_000) / 16_000
    sounds = 0.5 * torch.stack([(2 * torch.pi * f * time).sin() for f in (200.0, 2000.0)])[:, None]
    with Image.open(Audio().preview(sounds, tmp_path / "x.png")) as drawn:
        levels = torch.tensor(list(drawn.convert("L").tobytes())).view(140, 648)[40:136]
    low, high = (levels[:, part].float().mean(1).argmax() for part in (slice(0, 320), slice(324, 644)))
    assert low > high + 20


def test_teacher_and_student_are_heard_side_by_side(tmp_path):
    way = Way(role=None, sampler=None, draw=lambda n: 0.1 * torch.randn(n, 1, 4096), conditions=lambda n: {})
    said = Audio(players=2).side_by_side({"teacher": way, "student": way}, tmp_path)
    page = (tmp_path / "listen.html").read_text()
    assert page.count("<audio") == 4 and "<th>teacher</th><th>student</th>" in page
    assert list(said) == ["beside.png"] and "listen.html" in said["beside.png"]
    with Image.open(tmp_path / "beside.png") as drawn:
        assert drawn.size == (648, 280)


def test_names_on_the_page_are_escaped():
    assert "<b>" not in listening_page({"<b>": torch.zeros(1, 1, 100)}, 16_000).split("</style>")[1]


def test_what_is_no_sound_is_refused(tmp_path):
    with pytest.raises(DataError, match="sounds are"):
        Audio().write(torch.zeros(2, 4), tmp_path)
