"""Results are made once, follow from seed and options, and survive kills."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from distill.core.errors import DataError, RecipeError
from distill.pipeline import Pipeline
from distill.pipeline.results import Results


def made(pipeline, out):
    """The nodes that a run makes."""
    said = []
    pipeline.run(out, said.append)
    return {line.split("  ")[1].split(":")[0] for line in said if "made" in line}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small):
    """The function that gives the folder of a run that nobody disturbed, by the name of the pipeline."""
    folder = tmp_path_factory.mktemp("whole")

    def once(name):
        if not (folder / name).exists():
            Pipeline.of(small(name)).run(folder / name)
        return folder / name

    return once


def test_a_second_run_makes_nothing(name, whole, small):
    assert made(Pipeline.of(small(name)), whole(name)) == set()


def test_another_folder_gets_the_same_bytes(name, whole, tmp_path, small, contents):
    Pipeline.of(small(name)).run(tmp_path)
    assert contents(tmp_path) == contents(whole(name))


def test_a_run_that_is_killed_five_times_ends_with_the_same_bytes(name, whole, tmp_path, small, contents):
    draw, kills, slowest = random.Random(name), 0, 1.5
    while kills < 5:
        child = os.fork()
        if not child:
            Pipeline.of(small(name)).run(tmp_path)
            os._exit(0)
        time.sleep(draw.uniform(0.02, slowest))
        os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        kills, slowest = kills + killed, slowest if killed else slowest / 2
        files = contents(tmp_path)
        assert files.items() <= contents(whole(name)).items()  # whole files, or none
        if not killed:
            shutil.rmtree(tmp_path)
    Pipeline.of(small(name)).run(tmp_path)
    assert contents(tmp_path) == contents(whole(name))


def test_only_what_depends_on_a_change_is_made_again(tmp_path, small):
    Pipeline.of(small("film")).run(tmp_path)
    changes = {
        "nodes.music.seed=3": {"music", "film"},
        "nodes.score.lens.chords=[G, C]": {"score", "music", "film"},
        "nodes.clip.cond.label=2": {"clip", "score", "music", "film"},
        "nodes.film.write={name: film, scale: 8}": {"film"},
    }
    for change, again in changes.items():
        assert made(Pipeline.of(small("film"), overrides=[change]), tmp_path) == again


def test_what_was_made_before_is_found_again(tmp_path, small):
    first = Pipeline.of(small("turntable"))
    before = first.run(tmp_path)["clip"][0].read_bytes()
    other = Pipeline.of(small("turntable"), overrides=["seed=1"])
    assert made(other, tmp_path) == {"picture", "scene", "turn", "clip", "splats"}
    assert (tmp_path / "clip-0000.mp4").read_bytes() != before
    assert made(first, tmp_path) == set() and (tmp_path / "clip-0000.mp4").read_bytes() == before


def test_a_result_that_is_lost_is_made_again_and_no_more_than_that(tmp_path, small, contents):
    pipeline = Pipeline.of(small("turntable"))
    pipeline.run(tmp_path)
    whole, names = contents(tmp_path), Results(pipeline, tmp_path).names
    (tmp_path / "cache" / names["picture"]).unlink()
    assert made(Pipeline.of(small("turntable")), tmp_path) == set()  # nobody needs it
    (tmp_path / "cache" / names["clip"]).unlink()
    assert made(Pipeline.of(small("turntable")), tmp_path) == {"clip"}
    assert contents(tmp_path).items() <= whole.items()


def test_music_is_as_long_as_the_clip_and_its_chords_change_on_the_beat(tmp_path, film):
    film.run(tmp_path)
    held = {name: load_file(tmp_path / "cache" / file) for name, file in Results(film, tmp_path).names.items()}
    assert held["clip"]["x"].shape[1] == 18 and held["music"]["x"].shape[-1] == 1.5 * 16_000
    chords, clip = held["score"]["x/chords"][0], held["clip"]["x"][0]
    beats = film.steps["score"].part.beats(clip)
    changes = (chords[1:] != chords[:-1]).any(1).nonzero()[:, 0] + 1
    distance = (changes[:, None] / 15.625 - beats).abs().amin(1)
    assert len(changes) and float(distance.max()) <= 1 / 15.625


def test_seeds_are_those_of_the_pipeline_and_of_the_nodes_name(tmp_path):
    nodes = {name: {"model": {"name": "digits-teacher", "steps": 1}} for name in ("a", "b")}
    pipeline = Pipeline.of({"nodes": {**nodes, "c": {**nodes["a"], "seed": 5}, "d": {**nodes["a"], "seed": 5}}})
    pipeline.run(tmp_path)
    a, b, c, d = (load_file(tmp_path / "cache" / file)["x"] for file in Results(pipeline, tmp_path).names.values())
    assert not torch.equal(a, b) and torch.equal(c, d)


def test_a_model_that_cannot_do_it_is_told_with_its_place_and_leaves_nothing(tmp_path, small):
    for change, why in {
        "nodes.clip.cond.label=77": "index out of range",
        "nodes.clip.cond.colour=1": "takes no condition 'colour'; it takes label",
        "nodes.clip.seconds=0.1": "ask for more",
        "nodes.music.prompt=loud": "reads no prompts",
        "nodes.score.lens.chords=[H]": "'H' is no chord",
    }.items():
        with pytest.raises(RecipeError, match=why) as error:
            Pipeline.of(small("film"), overrides=[change]).run(tmp_path)
        assert f"node '{change.split('.')[1]}' cannot be made" in str(error.value)
        assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.rglob(".*.part"))


def test_results_of_a_run_change_when_it_is_trained_further(tmp_path, monkeypatch):
    from distill.core.commands import train

    (tmp_path / "r.yaml").write_text(
        "method: {name: dmd2, steps: 2}\nteacher: digits-teacher\ndata: digits\nbatch_size: 4\n"
    )
    train(tmp_path / "r.yaml", [], tmp_path / "run")
    values = {"nodes": {"a": {"model": str(tmp_path / "run"), "n": 2}, "b": {"write": "image", "of": "$a"}}}
    before = Pipeline.of(values)
    assert len(before.run(tmp_path / "out")["b"]) == 2
    train(tmp_path / "r.yaml", ["method.steps=3"], tmp_path / "run", resume=True, resume_anyway=True)
    assert made(Pipeline.of(values), tmp_path / "out") == {"a", "b"}


def test_a_damaged_result_is_named(tmp_path, small):
    pipeline = Pipeline.of(small("turntable"))
    pipeline.run(tmp_path)
    names = Results(pipeline, tmp_path).names
    (tmp_path / "cache" / names["turn"]).write_bytes(b"no tensors")
    (tmp_path / "cache" / names["clip"]).unlink()
    with pytest.raises(DataError, match="delete it, and it is made anew"):
        Pipeline.of(small("turntable")).run(tmp_path)
