"""`distill reproduce`: claims measured, written, gathered on a page, and failing loudly."""

from __future__ import annotations

import json

import pytest

PLUGIN = """
from distill.core.claims import Claim, Row
from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


@hookimpl
def distill_methods():
    about = {"summary": "a method", "paper": "arXiv:2405.14867", "target": "claims:Row"}
    return [Component(name=name, claim=f"claims:{name}", **about) for name in ("good", "bad")]


def good(seed):
    return Claim("good", "It is small.", [Row("size", 0.5 + seed, "<=", 2, "a big one: 3")], "Size 9.", {"seed": seed})


def bad(seed):
    rows = [Row("size", float("nan") if seed else 1.0, "<=", 2)]
    return Claim("bad", "It is small too.", rows, "Size 8.", {"seed": seed}, open="Whether it grows.")
"""


@pytest.fixture
def measured(site, distill, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site.install("claims", PLUGIN)
    return distill


def test_outcomes_are_printed_and_written(measured, tmp_path):
    code, out, err = measured("reproduce", "good", "--seeds", "0,1")
    assert (code, err) == (0, "") and "good, seed 1" in out and "1.5" in out and "<= 2" in out
    outcome = json.loads((tmp_path / "reproduction/good-seed1.json").read_text())
    assert outcome["holds"] and outcome["rows"][0]["value"] == 1.5


def test_a_missed_threshold_is_exit_code_one_and_names_the_run(measured):
    code, _, err = measured("reproduce", "bad", "good", "--seeds", "0,1", "-o", "out")
    assert code == 1 and "bad, seed 1: size" in err and "seed 0" not in err


def test_a_page_gathers_what_several_calls_measured(measured, tmp_path):
    measured("reproduce", "bad", "--seeds", "0,1")
    assert measured("reproduce", "--all", "--page", "page.md").code == 0
    page = (tmp_path / "page.md").read_text()
    assert "| [bad](#bad) | It is small too. | **not on seeds 1** |" in page and "| on seeds 0 |" in page
    assert "| size | 1 | **nan** | <= 2 |" in page and "Not confirmed: Whether it grows." in page
    assert measured("reproduce", "--page", "again.md").code == 0
    assert (tmp_path / "again.md").read_text() == page


def test_nothing_named_is_an_error(measured):
    code, _, err = measured("reproduce")
    assert code == 2 and "--all" in err
