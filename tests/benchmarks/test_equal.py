"""The two sides of every benchmark compute the same; their speed is no matter for tests."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("table", "dmd2", "sampling", "memory", "quality", "streams", "gaussians", "music", "music_methods")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The benchmarks' modules, which import each other as scripts do, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(FOLDER)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        sys.modules.pop(name)


@pytest.mark.parametrize("network", ["UNet2DModel", "DiTTransformer2DModel"])
def test_the_engine_does_what_a_loop_by_hand_does(bench, network):
    ours, theirs = (side(bench.dmd2.teacher(network), 4) for side in (bench.dmd2.engine, bench.dmd2.ByHand))
    assert bench.dmd2.gap_after(ours, theirs) < 1e-6
    assert bench.dmd2.gap(ours, bench.dmd2.ByHand(bench.dmd2.teacher(network), 4)) > 3e-4


@pytest.mark.filterwarnings("ignore")  # modelopt warns of versions and of what it imports
def test_losses_and_gradients_are_those_of_modelopt(bench):
    pytest.importorskip("modelopt", reason="nvidia-modelopt is optional")
    loss, gradient = bench.dmd2.gaps_to_modelopt("DiTTransformer2DModel", 4)
    assert loss < 1e-6 and gradient < 1e-6


@pytest.mark.parametrize("loop", ["ddim", "flow"])
def test_samples_are_those_of_diffusers(bench, loop):
    ours, theirs = getattr(bench.sampling, loop)(5, 2)
    images = ours()
    assert images.std() > 0.1 and (images - theirs()).abs().max() < 1e-5


def test_adapters_on_one_base_hold_less_than_half_of_three_copies(bench):
    small = {"layers": 2, "heads": 2}
    few, many = (bench.memory.peak(adapters, bench.memory.network(**small)) for adapters in (True, False))
    weights = sum(4 * p.numel() for p in bench.memory.network(**small).parameters())
    assert weights < few < 0.5 * many
    assert many == pytest.approx(9 * weights, rel=0.001)


def test_a_missed_bar_and_a_missing_number_are_told(bench):
    slow = {"frechet (digits)": 1.0, "recall (digits)": 1.0, "ms per sample": 30.0}
    fast = {"frechet (digits)": 2.0, "recall (digits)": 0.8, "ms per sample": 1.0}
    rows = bench.quality.rows({"teacher, 64 steps": slow, "student, 1 step": fast})
    assert [row.cells()[5] for row in rows] == ["MISSED", "MISSED", "met"]
    assert bench.table.Row("what", 1.0, why="no peer").cells()[5:] == ("not measured", "no peer")


@pytest.mark.parametrize("side", [8, 16])
def test_chunks_are_those_of_self_forcings_roll_out(bench, side):
    assert bench.streams.gap(9, side) < 1e-4


def test_a_call_with_a_cache_says_what_a_pass_over_all_chunks_says(bench):
    ours, theirs = bench.streams.without_cache(4)
    assert theirs().std() > 0.1 and (ours() - theirs()).abs().max() < 1e-4


def test_pictures_of_gaussians_are_those_of_every_pixel_with_every_gaussian(bench):
    worst, beyond = bench.gaussians.gap(300, 24, torch.float64)
    assert worst < 1e-9 and beyond == 0 and bench.gaussians.gradient_gap(100, 16) < 1e-8


def test_the_plot_shows_what_cost_grows_with(bench, tmp_path):
    points = [(n, 100 * (7 * n % 5 + 1), 0.01 * n) for n in range(1, 9)]
    bench.gaussians.plot(points, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("<circle") == 16
    assert bench.gaussians.explained([p[0] for p in points], [p[2] for p in points]) == pytest.approx(1)


def test_music_of_any_length_is_timed_in_latents_and_as_sound(bench, monkeypatch):
    monkeypatch.setattr(bench.music, "TURNS", 1)
    monkeypatch.setattr(bench.music, "PAIRS", 1)
    rows = bench.music.music(8)
    assert len(rows) == 3 and all(row.value > 0 for row in rows) and rows[0].value > rows[1].value


@pytest.mark.long
def test_six_methods_make_students_of_one_teacher_of_music(bench, monkeypatch):
    monkeypatch.setattr("distill.audio.modality.Audio.compared", 8)
    small = bench.music_methods.NETWORK | {"width": 16, "depth": 2, "heads": 2}
    monkeypatch.setattr(bench.music_methods, "NETWORK", small)
    found = bench.music_methods.rows(2, 6, 8)
    assert {name: row["calls"] for name, row in found.items()} == {name: int(name.split()[-2]) for name in found}
    assert len(found) == 9 and all(row["frechet-audio (CREPE tiny)"] > 0 for row in found.values())
    assert bench.music_methods.table(found).count("\n| ") == 11
