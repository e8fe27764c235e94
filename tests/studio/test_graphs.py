"""Pipelines as texts."""

from __future__ import annotations

import pytest

from distill.core.errors import RecipeError
from distill.studio import graphs

TEXT = """
nodes:
  picture: {model: emoji-student}
  still: {write: image, of: $picture}
"""
GIVEN = {"data": {"name": "pictures", "folder": "a"}}


def test_those_that_ship_and_those_that_were_saved(tmp_path):
    file, out = graphs.save(TEXT, tmp_path, "mine")
    assert {"film", "turntable", "upscaled", "mine"} <= graphs.known(tmp_path).keys()
    assert file.read_text() == TEXT and out == tmp_path / "pipelines" / "mine"


@pytest.mark.parametrize("name", ["", "../a", "a/b", "-o", "a" * 100])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(RecipeError, match="no name"):
        graphs.save(TEXT, tmp_path, name)


def test_a_node_is_replaced():
    assert "picture:\n    data:" in graphs.replaced(TEXT, "picture", GIVEN)
    with pytest.raises(RecipeError, match="it has picture, still"):
        graphs.replaced(TEXT, "clip", GIVEN)


def test_a_mistake_is_told_with_its_place(tmp_path):
    with pytest.raises(RecipeError, match="the pipeline:4"):
        graphs.told(TEXT.replace("$picture", "$pictur"), tmp_path, "mine")


def test_the_plan_and_the_picture(tmp_path):
    svg, plan = graphs.told("nodes: {a: {data: digits}, b: {write: image, of: $a}}", tmp_path, "mine")
    assert svg.startswith("<svg") and "to be made" in plan
