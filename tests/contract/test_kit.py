"""The conformance kit finds the fault that each check is there for."""

from __future__ import annotations

import sys
import unittest
from importlib import import_module

import pytest

from distill.core.discovery import Source
from distill.core.errors import PluginLoadError, UnknownName
from distill.core.hookspecs import KINDS
from distill.core.registry import Registry
from distill.core.testing import CHECKS, Unfit, check_plugin, component_checks

HEAD = '''
import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from distill.core import *
from distill.core.contracts import *
from distill.core.hookspecs import Component, hookimpl
from distill.core.paths import Flow
from distill.core.plan import one_phase
from distill.core import tree

DISTILL_SPEC = 1
COUNT = []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, t, cond):
        return self.layer(torch.cat([x, t[:, None]], 1))


class Own(Trajectory):
    """The student's prediction of noise."""

    def events(self, batch, ctx, *, attached):
        x = batch.noise(ctx.rng)
        with torch.set_grad_enabled(attached):
            said = ctx.roles["student"].predict(x, 0.9, batch.cond)
        yield Event(said.x0, batch.cond, said.t, x, prediction=said)


class Still(Loss):
    """Draws the student's states to the origin."""

    def terms(self, event, ctx):
        return {"still": tree.mean(tree.tree_map(torch.square, event.x))}


class Pull(Method):
    """The student is pulled to the origin."""

    def plan(self, teacher):
        updates = [Update(trajectory=Own(), loss=Still())]
        return Plan(phases=one_phase(updates, 4, {"student": Optimiser()}))
'''
GOOD = {
    "denoiser": '''
class Thing(Builder):
    """A perceptron."""

    width: int = 4
    """Units."""

    def build(self):
        return Denoiser(Net(), Flow(), "x0", shape=(2,), taps=("layer",))
''',
    "trajectory": "Thing = Own",
    "loss": "Thing = Still",
    "method": "Thing = Pull",
    "lens": '''
class Thing(Lens):
    """Twice the state."""

    def __call__(self, state):
        return 2 * state
''',
    "command": '''
def Thing(picture: Path, steps: int = 1):
    """Looks at a picture."""
''',
    "transform": '''
class Thing(Transform):
    """Nothing at all."""

    def apply(self, roles, name):
        pass
''',
    "dataset": '''
class Thing(DataSource):
    """Two values."""

    def open(self, split="train"):
        return Samples(x=torch.arange(8.0).view(4, 2))
''',
    "metric": '''
class Thing(Metric):
    """Distance of the means of squares."""

    def measure(self, samples, reference, cond=None):
        return float((samples.square().mean() - reference.square().mean()).abs())
''',
    "modality": '''
class Thing(Modality):
    """Text."""

    suffix: ClassVar[str] = ".txt"

    def write(self, samples, folder, stem="sample"):
        folder.mkdir(parents=True)
        paths = [folder / f"{stem}-{row}.txt" for row in range(len(samples))]
        return [path for path, x in zip(paths, samples) if path.write_text(str(x.tolist()))]

    def preview(self, samples, path, titles=()):
        path.write_bytes(b"\\x89PNG\\r\\n\\x1a\\n")
        return path
''',
}
REPLANNED = """
class Thing(Pull):
    'Its result is nobody.'

    def plan(self, teacher):
        return super().plan(teacher).model_copy(update={'result': 'student_ema'})
"""
MEDDLING = """def terms(self, event, ctx):
        ctx.roles['critic'].module.place.data += 1"""
HIDDEN = """self.layer = nn.Linear(3, 2); w = torch.randn(1)
        self.layer.register_forward_hook(lambda m, a, o: o + w)"""
PUSHING = '{"still": 0 * ctx.roles["teacher"].module.place.data.add_(1).sum() + '
TWICE = "    conformance: ClassVar = {'options': 'x'}\n    known_failures: ClassVar = {'options': 'x'}"
BROKEN = [
    ("loss", "resolves", "Thing = Still", "Thing = Own"),
    ("loss", "described", '"""Draws the student\'s states to the origin."""', ""),
    ("denoiser", "described", '    """Units."""\n', ""),
    ("denoiser", "options", "    width: int = 4\n", "    width: int\n"),
    (
        "denoiser",
        "options",
        "    width: int = 4",
        "    model_config = {'extra': 'ignore'}\n    width: int = 4",
    ),
    ("denoiser", "shape", "return self.layer(torch.cat([x, t[:, None]], 1))", "return torch.cat([x, x], 1)"),
    ("denoiser", "shape", "t[:, None]], 1))", "t[:, None]], 1)).double()"),
    ("denoiser", "times", "t[:, None]", "t[:1, None].expand(len(x), 1)"),
    ("denoiser", "permutation", "t[:, None]], 1))", "t[:, None]], 1)) * torch.arange(len(x))[:, None]"),
    ("denoiser", "randomness", "torch.cat([x, ", "torch.cat([x + torch.randn_like(x), "),
    ("denoiser", "serialisation", "self.layer = nn.Linear(3, 2)", HIDDEN),
    ("denoiser", "taps", "return self.layer(", "return self.layer.forward("),
    ("trajectory", "toy/events", "batch.noise(ctx.rng)", "torch.randn(batch.size, 2)"),
    ("trajectory", "toy/moves", "torch.set_grad_enabled(attached)", "torch.enable_grad()"),
    ("trajectory", "toy/moves", "Event(said.x0", "Event(said.x0 + ctx.roles['critic'].predict(x, 0.9).x0"),
    ("loss", "toy/terms", "tree.mean(tree.tree_map(torch.square, event.x))", "event.x"),
    ("loss", "toy/determinism", "torch.square, event.x)", "torch.square, event.x + torch.randn(8, 2))"),
    (
        "loss",
        "toy/moves",
        "def terms(self, event, ctx):",
        f"needs: ClassVar = ('student', 'critic')\n\n    {MEDDLING}",
    ),
    ("method", "toy/roles", "Thing = Pull", REPLANNED),
    ("method", "toy/iterations", '{"still": ', PUSHING),
    ("method", "toy/resume", "batch.noise(ctx.rng)", "batch.noise(ctx.rng) * len(COUNT.append(1) or COUNT)"),
    ("lens", "toy/lens", "2 * state", "2 * state.detach()"),
    (
        "transform",
        "toy/transform",
        "        pass",
        "        roles[name].module.network.outlet = nn.Linear(16, 3)",
    ),
    ("command", "command", "picture: Path", "picture: int | str"),
    ("command", "command", '"""Looks at a picture."""', "pass"),
    ("dataset", "samples", "torch.arange(8.0).view(4, 2)", "torch.zeros(1, 2)"),
    ("dataset", "samples", "Samples(x=", "Samples(y="),
    ("metric", "measure", ".abs())", ".abs()) + float(torch.rand(()))"),
    ("metric", "measure", "return float(", "return -float("),
    ("modality", "files", "for row in range(len(samples))]", "for row in range(2)]"),
    ("modality", "files", '".txt"', '".wav"'),
    (
        "lens",
        "declared",
        "    def __call__",
        "    conformance: ClassVar = {'toys': 'no such group'}\n\n    def __call__",
    ),
    ("lens", "declared", "    def __call__", "    conformance: ClassVar = {'toy/lens': ' '}\n\n    def __call__"),
    ("lens", "declared", "    def __call__", f"{TWICE}\n\n    def __call__"),
]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Makes a plugin of one component."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("distill.core.testing.kit.check_lazy", lambda entry_point: None)  # it costs seconds

    def make(kind: str, source: str, head: str = HEAD) -> Registry:
        record = "Component(name='thing', summary='A thing.', target='toy_plugin:Thing')"
        hook = f"@hookimpl\ndef {KINDS[kind]}():\n    return [{record}]\n"
        (tmp_path / "toy_plugin.py").write_text(f"{head}\n{source}\n\n{hook}")
        return Registry([Source.of(import_module("toy_plugin"))])

    yield make
    sys.modules.pop("toy_plugin", None)


def failures(registry):
    found = {result.what: result.failure for result in check_plugin("toy_plugin", registry=registry)}
    return {what.rpartition(": ")[2]: why for what, why in found.items() if why and not what.endswith("lazy")}


@pytest.mark.parametrize("kind", GOOD)
def test_a_sound_component_passes(plugin, kind):
    assert failures(plugin(kind, GOOD[kind])) == {}


@pytest.mark.parametrize(
    ("kind", "check", "old", "new"), BROKEN, ids=[f"{b[0]}-{b[1]}-{n}" for n, b in enumerate(BROKEN)]
)
def test_a_fault_is_found_by_its_check(plugin, kind, check, old, new):
    assert old in HEAD + GOOD[kind]
    registry = plugin(kind, GOOD[kind].replace(old, new), HEAD.replace(old, new))
    assert check in failures(registry)


def test_every_check_has_a_fault_that_it_finds():
    assert {name for name, *_ in CHECKS} - {check for _, check, *_ in BROKEN} == {"toy/exact-teacher"}


def test_a_score_difference_of_unequal_noises_is_found(plugin):
    source = '''
class Thing(Loss):
    """Compares teacher and critic at two noises."""

    @property
    def needs(self):
        return ("student", "teacher", "critic")

    def terms(self, event, ctx):
        asked = [(name, event.x.detach() + ctx.rng.normal(8, 2)) for name in ("critic", "teacher")]
        said = [ctx.roles[name].ask(x_t, 0.5).x0 for name, x_t in asked]
        return {"x": (event.x * (said[0] - said[1])).mean(1)}
'''
    assert "the gradient is" in failures(plugin("loss", source))["toy/exact-teacher"]


def test_a_declared_gap_is_named_with_its_reason(plugin):
    source = (
        GOOD["lens"]
        .replace("2 * state", "1 / 0")
        .replace(
            "    def __call__",
            "    conformance: ClassVar[dict[str, str]] = {'toy': 'it looks at scenes'}\n\n    def __call__",
        )
    )
    registry = plugin("lens", source)
    assert failures(registry) == {}
    whats = [result.what for result in check_plugin("toy_plugin", registry=registry)]
    assert "lens thing: toy/lens (does not apply: it looks at scenes)" in whats
    with pytest.raises(unittest.SkipTest, match="scenes"):
        dict(component_checks("toy_plugin", registry))["lens thing: toy/lens"]()


KNOWN = "    known_failures: ClassVar = {'toy/lens': 'it shows no scenes yet'}\n\n    def __call__"


def test_a_known_failure_is_named_with_its_reason(plugin):
    source = GOOD["lens"].replace("2 * state", "1 / 0").replace("    def __call__", KNOWN)
    results = list(check_plugin("toy_plugin", registry=plugin("lens", source)))
    assert "lens thing: toy/lens (fails as expected: it shows no scenes yet)" in [result.what for result in results]
    assert not any(result.failure for result in results if not result.what.endswith("lazy"))


def test_a_known_failure_that_passes_is_a_failure(plugin):
    registry = plugin("lens", GOOD["lens"].replace("    def __call__", KNOWN))
    assert "it passes, and `known_failures` says" in failures(registry)["toy/lens"]


@pytest.mark.parametrize("run", [run for *_, run in CHECKS], ids=lambda run: run.__name__)
def test_every_check_says_why_it_is_made_and_how_to_mend(run):
    why, mend, remedy = (run.__doc__ or "").partition("Mend: ")
    assert why.strip() and mend and remedy.strip()


def test_a_failure_brings_its_remedy(plugin):
    registry = plugin("lens", GOOD["lens"].replace("2 * state", "2 * state.detach()"))
    (result,) = [r for r in check_plugin("toy_plugin", registry=registry) if r.failure and "lazy" not in r.what]
    assert result.remedy.startswith("Mend: compute with tensors only") and "Why: A teacher's opinion" in result.remedy
    with pytest.raises(Unfit, match="no gradient runs through it\nMend: compute"):
        dict(component_checks("toy_plugin", registry))[result.what]()


def test_a_plugin_that_imports_torch_is_not_lazy(site):
    source = "import torch\nDISTILL_SPEC = 1\n"
    site.install("heavy", source)
    (result,) = check_plugin("heavy", registry=site.registry())
    assert result.what == "heavy: lazy" and "imports" in result.failure and "torch" in result.failure


def test_a_missing_target_is_a_failure_and_not_the_end(site):
    site.plugin("hollow", "x", "y", target="hollow:Nothing")
    results = list(check_plugin("hollow", registry=site.registry()))
    assert [bool(r.failure) for r in results if "resolves" in r.what] == [True, True]
    assert PluginLoadError.__name__ in results[1].failure


def test_a_plugin_that_is_not_there_is_an_error(site):
    with pytest.raises(UnknownName):
        list(check_plugin("nobody", registry=site.registry()))
