"""What `--dry-run` and `--graph` show."""

from __future__ import annotations

from xml.etree import ElementTree

import yaml

from distill.pipeline.nodes import Model
from distill.pipeline.plan import costs, drawn
from distill.pipeline.results import Results


def test_a_dry_run_tells_and_makes_nothing(cli, small, tmp_path):
    (tmp_path / "film.yaml").write_text(yaml.safe_dump(small("film")))
    code, out, _ = cli("pipeline", "film.yaml", "--dry-run", "-o", "out")
    assert code == 0 and "video-dit" in out and "to be made" in out and "$score.chords" in out
    assert "2 each" in out and "most memory" in out and not (tmp_path / "out").exists()


def test_costs_count_what_is_due(film, tmp_path):
    found = costs(film, Results(film, tmp_path))
    assert list(found) == list(film.steps) and found["picture"].calls == 2 and found["score"].weights == 0
    assert found["clip"].weights == sum(p.nbytes for p in film.steps["clip"].part.options.build().parameters())
    film.run(tmp_path)
    assert costs(film, Results(film, tmp_path)) == {}


def test_a_condition_that_a_network_does_not_take_is_told_before_it_runs(cli, small, tmp_path):
    values = small("film")
    values["nodes"]["clip"]["cond"] = {"speed": 1}
    (tmp_path / "film.yaml").write_text(yaml.safe_dump(values))
    code, _, err = cli("pipeline", "film.yaml", "--dry-run")
    assert code == 2 and "film.yaml:" in err and "no condition 'speed'; it takes label" in err


def test_the_graph_has_every_node_and_edge_and_nothing_is_loaded(cli, monkeypatch, tmp_path):
    monkeypatch.setattr(Model, "load", lambda self, world: 1 / 0)
    assert cli("pipeline", "film", "--graph", "film.svg").code == 0
    tree = ElementTree.parse(tmp_path / "film.svg").getroot()
    said = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"picture", "clip", "music", "film", "model moving-student", "chords", "video", "audio"} <= set(said)
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) == 7
    assert not list(tmp_path.glob(".*")) and [path.name for path in tmp_path.iterdir()] == ["film.svg"]


def test_every_node_stands_right_of_those_that_it_needs(film):
    tree = ElementTree.fromstring(drawn(film))
    boxes = [each for each in tree.iter("{http://www.w3.org/2000/svg}rect") if each.get("rx")]
    x = dict(zip(film.steps, (int(box.get("x")) for box in boxes), strict=True))
    assert all(x[edge.node] < x[name] for name, step in film.steps.items() for edge in step.node.inputs.values())


def test_the_command_runs_and_names_the_files(cli, small, tmp_path):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(small("turntable")))
    first, second = (cli("pipeline", "t.yaml", "nodes.turn.lens.frames=2") for _ in range(2))
    assert first.code == 0 and "runs/t/clip-0000.mp4" in first.out and "made in" in first.out
    assert second.code == 0 and "made in" not in second.out
    with_ = cli("pipeline", "t.yaml", "--dry-run")
    assert with_.code == 0
