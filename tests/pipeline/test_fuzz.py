"""Pipelines that chance has spoilt: one message and exit code 2, or a plan that holds; nothing half-written."""

from __future__ import annotations

import random
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import av
import pytest
import yaml

ODD = [
    None, True, -1, 0, 3, 1e308, float("nan"), "", "$", "$clip", "$score.chords", "$$", "film", "zoom", "relief", "é",
    "../x", [], {}, [[]], {"name": "zoom"}, {"name": 3}, ["$clip"], {"video": "$clip"}, "2026-01-01", 10**30,
]  # fmt: skip
SIGNS = " :{}[]$,.-#&*!|>'\"%@`\n\t0aé\x00"
TEXTS = [file.read_text() for file in sorted(Path(str(files("distill.pipeline") / "pipelines")).glob("*.yaml"))]


def spoilt_text(draw):
    """The text of a shipped pipeline after a few changes of characters and lines."""
    text = draw.choice(TEXTS)
    for _ in range(draw.randint(1, 4)):
        at, lines = draw.randrange(len(text)), text.split("\n")
        line = draw.randrange(len(lines))
        text = draw.choice([
            text[:at] + draw.choice(SIGNS) + text[at:],
            text[:at] + text[at + draw.randint(1, 5) :],
            "\n".join(lines[:line] + lines[line + 1 :]),
            "\n".join([*lines[:line], draw.choice(lines), *lines[line:]]),
        ])  # fmt: skip
    return text


def spoilt_values(draw, values, most=3):
    """Values after a few of them were taken away, renamed or replaced."""
    values = deepcopy(values)
    for _ in range(draw.randint(1, most)):
        place = values
        while isinstance(place, dict) and place:
            key = draw.choice(sorted(place, key=str))
            if isinstance(place[key], dict) and place[key] and draw.random() < 0.8:
                place = place[key]
                continue
            value = place.pop(key)
            change = draw.randrange(3)
            if change:
                place[key if change == 1 else draw.choice(["of", "lens", "seed", "x"])] = (
                    draw.choice(ODD) if change == 1 else value
                )
            break
    return values


@pytest.mark.parametrize("part", range(3))
def test_spoilt_files_are_refused_in_one_message_or_planned(part, cli, tmp_path):
    planned = 0
    for number in range(100 * part, 100 * part + 100):
        draw = random.Random(number)
        of_text = number % 2
        text = spoilt_text(draw) if of_text else yaml.safe_dump(spoilt_values(draw, yaml.safe_load(draw.choice(TEXTS))))
        Path("p.yaml").write_text(text, encoding="utf-8")
        code, _, err = cli("pipeline", "p.yaml", "--graph", "p.svg", "-o", "out")
        assert code in (0, 2), f"{number}: {err}\n{text}"
        assert (code == 2) == err.startswith("error: ") and "Traceback" not in err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["p.svg", "p.yaml"][code // 2 :]
        if not code:
            ElementTree.parse("p.svg")
            Path("p.svg").unlink()
            planned += 1
    assert 5 < planned < 95


def test_spoilt_pipelines_that_run_leave_whole_files_or_none(cli, small, tmp_path):
    ran = 0
    for number in range(30):
        draw = random.Random(number)
        values = spoilt_values(draw, small(draw.choice(["film", "turntable"])), most=1)
        Path("p.yaml").write_text(yaml.safe_dump(values))
        code, _, err = cli("pipeline", "p.yaml", "-o", f"out{number}")
        assert code in (0, 2), f"{number}: {err}\n{yaml.safe_dump(values)}"
        ran += not code
        for film in tmp_path.glob(f"out{number}/*.mp4"):
            av.open(str(film)).close()
        assert not list(tmp_path.rglob("*.part"))
    assert 2 < ran < 28
