"""What is checked before anything loads, and what is said of what does not fit."""

from __future__ import annotations

import pytest

from distill.core.errors import DistillError, RecipeError, UnknownName
from distill.pipeline import Pipeline
from distill.pipeline.nodes import Model

GOOD = """\
nodes:
  picture:
    model: emoji-student
    prompt: a red heart
  clip:
    lens: zoom
    of: $picture
  sound:
    data: {name: chorales, form: sound}
  film:
    write: film
    of: {video: $clip, audio: $sound}
"""


@pytest.fixture(autouse=True)
def nothing_loads(monkeypatch):
    monkeypatch.setattr(Model, "load", lambda self, world: pytest.fail("a network was loaded"))


def refused(tmp_path, text):
    """What is said of a pipeline that does not fit."""
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DistillError) as error:
        Pipeline.read(tmp_path / "p.yaml")
    return str(error.value).replace(f"{tmp_path}/", "")


def test_what_fits_is_read_and_edges_carry_types_and_units(tmp_path):
    (tmp_path / "p.yaml").write_text(GOOD)
    steps = Pipeline.read(tmp_path / "p.yaml", ["nodes.clip.lens={name: zoom, rate: 30}"]).steps
    assert str(steps["clip"].gives[""]) == "video (30 frames a second)"
    assert (steps["film"].part.video_rate, steps["film"].part.audio_rate) == (30, 16_000)


def test_shipped_pipelines_fit(name, small):
    assert Pipeline.read(name).steps.keys() == Pipeline.of(small(name)).steps.keys()


def test_a_clip_in_a_port_of_sound_names_both_ends(tmp_path):
    said = refused(tmp_path, GOOD.replace("audio: $sound", "audio: $clip"))
    assert said.startswith("p.yaml:12: 'of.audio' of node 'film' takes audio, and node 'clip' (p.yaml:5) gives video")
    assert "(12 frames a second)" in said and "no lens that is installed leads there" in said and "'score'" in said


@pytest.mark.parametrize(
    ("old", "new", "lens"),
    [
        ("video: $clip", "video: $picture", "{lens: sprite, of: $picture}"),
        ("lens: zoom\n    of: $picture", "lens: turntable\n    of: $picture", "'relief'"),
        ("data: {name: chorales, form: sound}", "lens: from-mel\n    of: $clip", "from video they lead to"),
    ],
)
def test_the_lens_that_would_fit_is_named(tmp_path, old, new, lens):
    assert lens in refused(tmp_path, GOOD.replace(old, new))


def test_two_lenses_in_a_row_are_named():
    nodes = {"a": {"model": "emoji-student"}, "b": {"lens": "relief", "of": "$a"}, "c": {"write": "audio", "of": "$b"}}
    with pytest.raises(RecipeError, match="from 3d they lead to image"):
        Pipeline.of({"nodes": nodes})
    nodes["c"] = {"lens": "score", "of": "$a"}
    nodes["d"] = {"model": "moving-student", "start": "$b", "seconds": 2}
    with pytest.raises(RecipeError, match="'sprite' or 'zoom'|'turntable'"):
        Pipeline.of({"nodes": nodes})


def test_units_that_contradict_are_refused_and_others_follow(tmp_path):
    said = refused(tmp_path, GOOD.replace("write: film", "write: {name: film, video_rate: 24}"))
    assert "node 'film' reads 24 frames a second" in said and "gives video (12 frames a second)" in said
    assert "'retime'" in said and "leave it out" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("$picture", "$pictre", "there is no node 'pictre'; did you mean '$picture'?"),
        ("of: $picture", "of: $film", "nodes need each other"),
        ("of: $picture", "of: picture", "an input is a '$' and the name of a node"),
        ("of: $picture", "of: $picture.left", "is nothing that node 'picture' gives: write '$picture'"),
        ("of: $picture", "of: {a: $picture}", "has no input 'of.a'; it takes 'of' (image)"),
        (", audio: $sound", "", "lacks its input 'of.audio'"),
        ("lens: zoom", "lens: zoon", "Did you mean 'zoom'?"),
        ("lens: zoom", "lens: {name: zoom, untill: 2}", "did you mean 'until'?"),
        ("lens: zoom", "lens: zoom\n    model: mlp", "it has 'model' and 'lens'"),
        ("lens: zoom", "lenses: zoom", "it has none of them"),
        ("prompt: a red", "promt: a red", "did you mean 'prompt'?"),
        ("model: emoji-student", "model: runs/none", "is no folder"),
        ("model: emoji-student", "model: mlp", "nobody knows what its samples look like"),
        ("prompt: a red heart", "start: $sound", "needs 'seconds'"),
        ("prompt: a red heart", "cond: {label: red}", "give a number"),
        ("nodes:", "seed: -1\nnodes:", "seed"),
        ("  clip:", "  cl/ip:", "is no name of a node"),
        ("lens: zoom", "lens: decode", "Field required"),
        ("lens: zoom", "lens: {name: decode, model: m}", "does not say what it takes and gives"),
    ],
)
def test_every_mistake_is_one_message(tmp_path, old, new, said):
    assert said in refused(tmp_path, GOOD.replace(old, new, 1))


def test_a_pipeline_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownName, match="Did you mean 'film'"):
        Pipeline.read("fil")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not a text file"):
        Pipeline.read("bytes.yaml")


def test_strangers_components_are_nodes(site):
    site.install("smell", STRANGER)
    nodes = {"nose": {"model": "nose"}, "louder": {"lens": "louder", "of": "$nose"}}
    steps = Pipeline.of({"nodes": nodes}, registry=site.registry()).steps
    assert str(steps["louder"].gives[""]) == "smell"


def test_a_modality_without_a_name_of_its_own_is_the_one_that_it_derives_from(site):
    own = "    def modality(self):\n        return {}()\n\n    def build(self)"
    site.install("smell", STRANGER.replace("    def build(self)", own.format("Stench")) + STENCH)
    steps = Pipeline.of({"nodes": {"nose": {"model": "nose"}}}, registry=site.registry()).steps
    assert steps["nose"].gives[""].type == "smell"


def test_a_modality_that_nobody_names_is_refused(site):
    own = "    def modality(self):\n        return {}()\n\n    def build(self)"
    lost = STENCH.replace("(Smell)", "(Modality)").replace("pass", "write = preview = lambda self, *given: None")
    site.install("smell", STRANGER.replace("    def build(self)", own.format("Stench")) + lost)
    with pytest.raises(RecipeError, match="no plugin gives the modality Stench a name"):
        Pipeline.of({"nodes": {"nose": {"model": "nose"}}}, registry=site.registry())


STENCH = '''

class Stench(Smell):
    """A strong smell."""

    pass
'''


STRANGER = '''
from typing import ClassVar
from distill.core import Builder, Lens, Modality
from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


@hookimpl
def distill_denoisers():
    return [Component(name="nose", summary="s", target="smell:Nose", modality="smell")]


@hookimpl
def distill_lenses():
    return [Component(name="louder", summary="s", target="smell:Louder")]


@hookimpl
def distill_modalities():
    return [Component(name="smell", summary="s", target="smell:Smell", modality="smell")]


class Nose(Builder):
    """A nose."""

    def build(self): ...


class Louder(Lens):
    """Louder."""

    takes: ClassVar[str] = "smell"
    gives: ClassVar[str] = "smell"

    def __call__(self, state): ...


class Smell(Modality):
    """A smell."""

    def write(self, samples, folder, stem="sample"): ...

    def preview(self, samples, path, titles=()): ...
'''
