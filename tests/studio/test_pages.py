"""What a person sees."""

from __future__ import annotations

import pytest
from PIL import Image

TEXT = "document.body.innerText"


def fold(page, name):
    page.locator(".q-item", has_text=name).first.click()


def press(page, text):
    page.locator("button.q-btn", has_text=text).first.click()


def bring(page, path):
    page.locator("input[type=file]").set_input_files(path)


def said(page, text):
    page.get_by_text(text).first.wait_for()


def test_two_runs_side_by_side_and_nothing_from_elsewhere(studio, page, red):
    address, root = studio
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/runs?one=one&two=two")
    page.wait_for_function("document.querySelectorAll('canvas').length >= 2")
    page.wait_for_function("document.querySelectorAll('img.sheet').length == 2")
    assert "50 of 50" in page.inner_text("body") and red(page) > 0.001
    with (root / "one" / "metrics.jsonl").open("a") as journal:
        journal.write('{"step": 60, "loss": 0.5, "news": 1.0}\n')
    page.wait_for_function("document.querySelectorAll('canvas').length >= 3")
    assert asked and all(each.startswith((address, "data:", "blob:")) for each in asked)


@pytest.mark.long
def test_plugins_are_listed_and_checked(studio, page):
    page.goto(studio[0])
    fold(page, "distill-studio")
    press(page, "Check every component")
    said(page, "finished")


@pytest.mark.long
def test_a_teacher_beside_its_student_is_heard(studio, page):
    page.goto(f"{studio[0]}/beside?pair=music-teacher:music-student&teacher=4&steps=1")
    page.wait_for_function("document.querySelectorAll('audio').length >= 6", timeout=240_000)
    page.wait_for_function("[...document.querySelectorAll('audio')].every(each => each.duration > 1)")
    assert "student, 1 step" in page.inner_text("body")


@pytest.mark.long
def test_a_run_is_trained_and_listed(studio, page):
    address, root = studio
    recipe = root.parent / "few.yaml"
    recipe.write_text("teacher: digits-teacher\ndata: digits\nmethod: {name: dmd2, steps: 3}\n")
    page.goto(f"{address}/runs")
    fold(page, "Train")
    page.get_by_label("recipe, a file in YAML").fill(str(recipe))
    page.get_by_label("name of the run").fill("brief")
    press(page, "Train")
    said(page, "finished")
    page.get_by_role("cell", name="brief", exact=True).wait_for()
    assert (root / "brief" / "report.html").is_file()


@pytest.mark.long
def test_a_pipeline_is_run_and_its_scene_turned(studio, page, red):
    page.goto(f"{studio[0]}/pipelines?name=turntable")
    page.wait_for_selector(".cm-content")
    press(page, "Run")
    page.wait_for_selector("video", timeout=300_000)
    press(page, "Turn it")
    page.frame_locator("iframe.scene").locator("canvas").first.wait_for()
    assert any(red(page) > 0.01 for _ in range(60)), "no red heart was drawn"


@pytest.mark.long
def test_a_picture_of_ones_own_takes_the_place_of_a_node(studio, page, tmp_path):
    address, root = studio
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    page.goto(f"{address}/pipelines?name=upscaled")
    page.wait_for_selector(".cm-content")
    fold(page, "Bring a picture or a sound")
    page.get_by_label("read by").click()
    page.get_by_role("option", name="picture-folder").click()
    page.get_by_label("in place of the node").fill("picture")
    bring(page, tmp_path / "a.png")
    page.wait_for_selector("img.sheet")
    press(page, "Run")
    page.wait_for_selector("video", timeout=300_000)
    with Image.open(root / "pipelines" / "upscaled" / "still-0000.png") as seen:
        assert seen.size == (256, 256) and seen.getpixel((128, 128))[0] > 200  # picture-folder reads 64 x 64


@pytest.mark.long
def test_what_is_no_picture_is_refused(studio, page, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    before = set((studio[1] / "uploads").glob("*"))
    page.goto(f"{studio[0]}/pipelines")
    bring(page, tmp_path / "a.png")
    said(page, "cannot be read")
    assert set((studio[1] / "uploads").glob("*")) == before
