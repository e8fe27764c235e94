"""Numbers under the names of metric and network, and tables of prompts."""

from __future__ import annotations

import json

import pytest
import torch

from distill.core import Metric, commands, measuring
from distill.core.data import Grouped, JoinedGroups, Worded, batches, captions_of, joined
from distill.core.errors import RecipeError
from distill.core.registry import default_registry
from distill.core.run import open_run
from distill.image.datasets import Digits
from distill.image.metrics import Diversity, Frechet, LabelAccuracy, ReferenceDistance

WORDS = "zero one two three four five six seven eight nine".split()


class Spoken(Worded):
    """Digits with their labels as captions, with or without pictures."""

    def __init__(self, pictures=True):
        self.data, self.pictures = Digits().open(), pictures

    @property
    def captions(self):
        return [WORDS[label] for label in self.data.tensors["label"].tolist()]

    def __len__(self):
        return len(self.data)

    def __getitem__(self, row):
        sample = self.data[row]
        return sample if self.pictures else {"label": sample["label"]}


class Mean(Metric):
    """Knows its texts; says more than one number."""

    needs_reference = False
    per_prompt = True

    def measure(self, samples, reference, cond=None):
        assert reference is None
        return float(len(cond["prompt"]))

    def numbers(self, samples, reference, cond=None):
        return {"": self.measure(samples, reference, cond), "twice": 2.0}


@pytest.fixture
def spoken(trained, monkeypatch):
    """The trained run, its digits with captions."""
    run = open_run(trained, default_registry())
    run.dataset = Spoken()
    return run


def test_the_network_stands_beside_every_number():
    x = Digits().open().tensors["x"][:40]
    metrics = [("frechet", Frechet()), ("count", Mean()), ("frechet", Frechet(features="clip", weights="here/b"))]
    found = measuring.measured(metrics[:2], x, x, {"prompt": ["a"] * 40})
    assert list(found) == ["frechet (digits)", "count", "count twice"] and found["count"] == 40
    assert metrics[2][1].network(x) == "clip b"


def test_captions_are_those_of_the_conditions():
    data = Spoken()
    labels = next(batches(data, 12, seed=5)).cond["label"]
    assert captions_of(data, 12, seed=5) == [WORDS[label] for label in labels.tolist()]
    assert captions_of(Digits().open(), 12) is captions_of(None, 12) is None


def test_captions_become_further_conditions_once_each():
    asked = []

    def encode(captions):
        asked.extend(captions)
        return {"wanted": torch.tensor([[float(len(caption))] for caption in captions])}

    data = joined(Spoken(), encode)
    batch = next(batches(data, 30, seed=5))
    lengths = [[float(len(caption))] for caption in captions_of(data, 30, seed=5)]
    assert batch.cond["wanted"].tolist() == lengths and len(asked) == len(set(asked)) <= 10
    assert torch.equal(batch.x, next(batches(Spoken(), 30, seed=5)).x) and data[3]["wanted"].shape == (1,)
    assert joined(Digits().open(), encode).tensors and joined(None, encode) is None


def test_further_conditions_keep_samples_of_one_shape_together():
    class Sorted(Grouped, Spoken):
        @property
        def groups(self):
            return [row % 2 for row in range(len(self))]

    data = joined(Sorted(), lambda captions: {"wanted": torch.zeros(len(captions))})
    assert isinstance(data, JoinedGroups) and data.groups[:3] == [0, 1, 0]


def test_prompts_come_worst_first_with_their_own_pictures(spoken, tmp_path):
    metrics = [("label-accuracy", Digit()), ("reference-distance", ReferenceDistance()), ("diversity", Diversity())]
    rows = measuring.by_prompt(spoken, metrics, each=4, most=40)
    assert set(rows) == set(WORDS) and list(rows["one"])[1] == "reference-distance (digits)"
    shares = [row["label-accuracy (digits)"] for row in rows.values()]
    assert shares == sorted(shares) and max(shares) > 0.4
    assert measuring.read_table(measuring.write_table(rows, tmp_path / "prompts.csv")) == rows
    few = measuring.by_prompt(spoken, [("reference-distance", ReferenceDistance())], each=4, most=9)
    assert len(few) == 2 and (values := [row["reference-distance (digits)"] for row in few.values()])[0] >= values[1]


class Digit(LabelAccuracy):
    """Of the prompt's word."""

    def measure(self, samples, reference=None, cond=None):
        return super().measure(samples, reference, {"label": torch.tensor([WORDS.index(w) for w in cond["prompt"]])})


@pytest.mark.parametrize("dataset, metric, said", [
    (Spoken(), Frechet(), "means something for a single prompt"), (Digits().open(), Diversity(), "have no captions"),
])  # fmt: skip
def test_what_has_no_prompts_is_refused(spoken, dataset, metric, said):
    spoken.dataset = dataset
    with pytest.raises(RecipeError, match=said):
        measuring.by_prompt(spoken, [("it", metric)], each=4, most=40)


def test_the_command_writes_the_table_and_the_report(spoken, monkeypatch, trained, tmp_path):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(commands, "open_run", lambda *_: spoken)
    monkeypatch.setattr(commands, "_series", lambda *_: ({}, {}))
    commands.evaluate(tmp_path / "run", "[{name: diversity, features: digits}, frechet]", 60, per_prompt=3)
    rows = measuring.read_table(tmp_path / "run" / "prompts.csv")
    assert len(rows) == 10 and set(rows["two"]) == {"diversity (digits)"}
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "frechet (digits)" in measured["student, 4 steps"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "the worst by diversity (digits) first (10 of 10" in page and "frechet (digits)" in page


def test_data_without_samples_refuse_what_compares_with_them(cli, recipe, tmp_path, monkeypatch):
    prompts = Spoken(pictures=False)
    monkeypatch.setattr("distill.image.datasets.Digits.open", lambda self, split="train": prompts)
    code, out, err = cli("train", recipe)
    assert code == 2 and out == "" and not (tmp_path / "runs").exists()
    assert "tiny.yaml:5: metrics.0: 'frechet' compares with real samples" in err and err.count("\n") == 1
    assert "name data with samples under 'data:', or measure agreement or " in err and "label-accuracy" in err
