"""Files that chance has spoilt: the loader answers with its own error, or reads them rightly, and nothing
else."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from distill.core import (
    EMA,
    Denoiser,
    Engine,
    Event,
    Loss,
    Method,
    Optimiser,
    Phase,
    Plan,
    Role,
    Roles,
    Sampler,
    Samples,
    Trajectory,
    Update,
    batches,
    checkpoint,
    tree,
)  # fmt: skip
from distill.core.errors import CheckpointError, DistillError
from distill.core.paths import Flow
from distill.core.recipe import Recipe, Resolver, load_recipe
from distill.core.registry import default_registry

CALM = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**63)

# ---------------------------------------------------------------- checkpoints


class Points(Trajectory):
    def events(self, batch, ctx, *, attached):
        said = ctx.roles["student"].predict(batch.data, ctx.rng.uniform(batch.size))
        yield Event(said.x0, targets={"x": batch.data})


class Regress(Loss):
    def terms(self, event, ctx):
        ctx.state["seen"] = ctx.state.get("seen", torch.zeros(())) + 1
        return {"regress": tree.mean((event.x - event.targets["x"]) ** 2)}


class Net(nn.Linear):
    def forward(self, x, t, cond):
        return super().forward(x)


def engine(folder=None):
    nets = {name: Denoiser(Net(2, 2), Flow(), "x0", shape=(2,)) for name in ("student", "student_ema")}
    roles = Roles({name: Role(name, net, frozen=name != "student") for name, net in nets.items()})
    update = Update(trajectory=Points(), loss=Regress())
    phase = Phase(steps=9, updates=(update,), optimisers={"student": Optimiser()}, actions=(EMA(),))
    data = Samples(x=torch.arange(8.0).view(4, 2))
    plan = Plan(phases=(phase,), sampler=Sampler(times=(1.0, 0.5), steps=2))
    return Engine(roles, plan, lambda start: batches(data, 2, start=start), folder=folder, identity={"recipe": "a"})


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return engine(tmp_path_factory.mktemp("run")).run(3).save()


def cut(content, dice):
    return content[: dice.randrange(len(content) + 1)]


def flip(content, dice):
    spoilt = bytearray(content)
    for _ in range(dice.choice((1, 1, 8))):
        spoilt[dice.randrange(len(spoilt))] ^= 1 << dice.randrange(8)
    return bytes(spoilt)


def fill(content, dice):
    at = dice.randrange(len(content))
    return content[:at] + dice.randbytes(dice.choice((1, 9, 2000))) + content[at + dice.choice((0, 1, 9)) :]


def rewrite(content, dice):
    """Another value somewhere in the JSON, or in the JSON header of the tensors."""
    size = 0 if content[:1] == b"{" else 8 + int.from_bytes(content[:8], "little")
    value = json.loads(content[8:size] if size else content)
    spoilt = json.dumps(spoil(value, dice)).encode()
    return len(spoilt).to_bytes(8, "little") + spoilt + content[size:] if size else spoilt


ODD = (
    None,
    True,
    -1,
    0,
    7,
    1e99,
    float("nan"),
    "",
    "x",
    "../../x",
    "\x00",
    [],
    {},
    [[]],
    {"a": 1},
    10**30,
    "F64",
    [3, -1],
)


def spoil(value, dice):
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(sorted(value))
        inner = spoil(value[key], dice)
        rest = {name: each for name, each in value.items() if name != key}
        return dice.choice(({**value, key: inner}, {**value, key: inner}, rest, {**rest, f"{key}x": inner}))
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(len(value))
        return dice.choice((value[:at] + [spoil(value[at], dice)] + value[at + 1 :], value[:at], value * 2))
    return dice.choice(ODD)


def mutate(folder, dice):
    """Spoil one file; half of the time the manifest is made to agree with it."""
    path = dice.choice(sorted(folder.iterdir()))
    how = dice.choice((cut, flip, fill, rewrite, rewrite, None, "swap"))
    if how is None:
        path.unlink()
        return
    other = dice.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    path.write_bytes(other.read_bytes() if how == "swap" else how(content, dice))
    manifest = folder / checkpoint.MANIFEST
    if path != manifest and dice.random() < 0.7:
        digests = json.loads(manifest.read_text())
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(digests))


@settings(CALM, max_examples=200)
@given(seed=SEEDS)
def test_200_spoilt_checkpoints_load_or_are_refused(good, seed):
    dice, folder = random.Random(seed), good.parent / ".spoilt"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    mutate(folder, dice)
    made = engine()
    try:
        made.resume(folder)
    except CheckpointError as error:
        assert str(folder) in str(error) and len(str(error)) < 2000
    else:
        assert isinstance(made.step, int) and isinstance(made.sampler, Sampler)
        assert all(
            p.shape == q.shape for p, q in zip(made.roles["student"].parameters(), Net(2, 2).parameters(), strict=True)
        )


# ---------------------------------------------------------------- recipes

RECIPE = """\
# a comment
teacher: {name: digits-teacher, steps: 8}
data: &d digits
batch_size: 8
accumulate: 2
precision: "no"
roles:
  critic: {copy_of: teacher, guidance: 1.5, transforms: [{name: lora, rank: 4}]}
metrics: [frechet, recall]
method:
  name: dmd2
  steps: 4
  times: [1.0, 0.75, 0.5, 0.25]
  score: {guidance: 3.0, times: {name: uniform, low: 0.02}}
  student_optimiser: {lr: 1.0e-4, betas: [0.0, 0.9]}
"""
PIECES = (
    "!!python/object/apply:os.system [echo]", "*d", "*nobody", "&a [*a]", "<<: *d", "2026-01-01", ".inf",
    "-.nan", "0x1f", "~",
    "{", "}", "[", "]", ":", "- ", "? ", "|", ">", "'", '"', "#", "%YAML 9", "---", "...", "\t", "\x00",
    "\ud7ff", "\ufeff",
    "9" * 400, "1e999", "yes", "{a: {a: {a: {a: 1}}}}", "[" * 60, "null: null", "1: 2", "? [a, b]\n: c",
    "!!binary zz", "!x y",
    "!!set {a}", "true: x", "name: 3", "é", "\U0001f600", "batch_size: 3", "steps: -1", "=: x",
    "x: !!timestamp 99",
)  # fmt: skip


def scramble(text, dice):
    lines = text.split("\n")
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    at, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    key, colon, value = lines[a].partition(": ")
    piece = dice.choice(PIECES)
    return dice.choice((
        lambda: text[:at] + piece + text[at:],
        lambda: text[:at] + text[min(end, at + 12) :],
        lambda: "\n".join([*lines[:a], lines[b], *lines[a:]]),
        lambda: "\n".join([*lines[:a], *lines[a + 1 :]]),
        lambda: "\n".join([*lines[:a], f"{key}: {piece}", *lines[a + 1 :]]),
        lambda: "\n".join([*lines[:a], f"{key[:-1]}{colon}{value}", *lines[a + 1 :]]),
        lambda: "\n".join([*lines[:a], " " * dice.randrange(4) + lines[a], *lines[a + 1 :]]),
        lambda: text.replace(value.strip() or "digits", piece, 1),
    ))()  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    default_registry.cache_clear()
    return default_registry()


OVERRIDES = st.lists(st.sampled_from([
    "steps", "=", "method.steps=x", "method.times.9=1", "method.times.0={", "roles=3", "roles.critic=7",
    "a.b.c=1", "method=[",
    "method.score.times.name=3", "metrics.0=3", "teacher.name.x=1", ".=1",
    "batch_size=!!python/name:os.system", "data=*d",
]), max_size=1)  # fmt: skip


@settings(CALM, max_examples=500)
@given(seed=SEEDS, overrides=OVERRIDES)
def test_500_spoilt_recipes_load_or_are_refused(registry, tmp_path_factory, seed, overrides):
    dice, text = random.Random(seed), RECIPE
    for _ in range(dice.choice((1, 2, 4))):
        text = scramble(text, dice)
    path: Path = tmp_path_factory.getbasetemp() / "spoilt.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        recipe, source = load_recipe(path, overrides)
        Resolver(registry, source)(recipe.method, "method", Method, "method")
    except DistillError as error:
        assert error.exit_code == 2 and str(error) and len(str(error)) < 5000
    else:
        assert isinstance(recipe, Recipe)
