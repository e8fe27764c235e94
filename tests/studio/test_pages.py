"""What a person sees."""

from __future__ import annotations

import pytest

TEXT = "document.body.innerText"


def colours(picture):
    return {colour for _, colour in picture.getcolors(2**20)}


def test_two_runs_side_by_side_and_nothing_from_elsewhere(studio, page):
    address, root = studio
    page.open(f"{address}/runs?one=one&two=two")
    page.wait("document.querySelectorAll('canvas').length >= 2 && document.querySelectorAll('img.sheet').length == 2")
    assert "50 of 50" in page.find(TEXT) and (255, 0, 0) in colours(page.picture())
    with (root / "one" / "metrics.jsonl").open("a") as journal:
        journal.write('{"step": 60, "loss": 0.5, "news": 1.0}\n')
    page.wait("document.querySelectorAll('canvas').length >= 3")
    assert all(each.startswith((address, "data:", "blob:")) for each in page.asked)


@pytest.mark.long
def test_plugins_are_listed_and_checked(studio, page):
    page.open(studio[0])
    page.wait(f"{TEXT}.includes('distill-studio')")
    page.find("[...document.querySelectorAll('.q-item')].find(e => e.innerText.includes('distill-studio')).click()")
    page.press("check every component")
    page.wait(f"{TEXT}.includes('finished')", 120)


@pytest.mark.long
def test_a_teacher_beside_its_student_is_heard(studio, page):
    page.open(f"{studio[0]}/beside?pair=music-teacher:music-student&teacher=4&steps=1")
    page.wait("document.querySelectorAll('audio').length >= 6", 240)
    page.wait("[...document.querySelectorAll('audio')].every(each => each.duration > 1)")
    assert "student, 1 step" in page.find(TEXT)


@pytest.mark.long
def test_a_pipeline_is_run_and_its_scene_turned(studio, deep_page):
    page = deep_page
    page.open(f"{studio[0]}/pipelines?name=turntable")
    page.wait("!!document.querySelector('.cm-content')")
    page.press("run")
    page.wait(f"{TEXT}.includes('finished')", 300)
    page.wait("!!document.querySelector('video')")
    page.press("turn it")
    page.wait("!!document.querySelector('iframe.scene')", 120)
    page.wait("document.querySelector('iframe.scene').contentDocument.querySelector('canvas') !== null", 120)
    assert any(page.share_of_red() > 0.01 for _ in range(60)), "no red heart was drawn"


@pytest.mark.long
def test_what_is_no_picture_is_refused(studio, page, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    page.open(f"{studio[0]}/pipelines")
    page.wait("!!document.querySelector('input[type=file]')")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    field = page.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "a.png")])
    page.wait(f"{TEXT}.includes('cannot be read')")
    assert not any((studio[1] / "uploads").iterdir())
