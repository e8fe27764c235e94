"""Checks of any component, and of lenses, transforms, datasets, modalities and metrics."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from safetensors.torch import load, save

from distill.core import paths, tree
from distill.core.cli import app
from distill.core.data import collate
from distill.core.rng import Rng
from distill.core.testing.fit import Unfit, ensure, equal, untouched
from distill.core.testing.kit import BASES, CHECKS, Case, check
from distill.core.testing.toy import Cast, on_some_path, toy_batch


@check("resolves")
def check_resolves(case: Case) -> None:
    """The target is there and of the right base class, or using the component fails far from its cause.

    Mend: correct the target in the Component record, or derive the class from the base of its kind.
    """
    base = BASES[case.entry.kind]
    right = isinstance(case.target, type) and issubclass(case.target, base)
    ensure(right, f"{case.entry.component.target} is no {base.__name__} of distill.core.contracts")
    ensure(not inspect.isabstract(case.target), f"{case.target.__name__} leaves methods of {base.__name__} out")
    if case.entry.component.claim:
        ensure(callable(case.entry.load_claim()), "its claim cannot be called")


@check("declared")
def check_declared(case: Case) -> None:
    """A check is left out, or expected to fail, for a reason that somebody else can judge; a misspelt name leaves
    out nothing.

    Mend: write {name of a check, or of its group: reason}, and declare no check twice.
    """
    names = {name for name, kinds, _ in CHECKS if case.entry.kind in kinds}
    known = names | {name.partition("/")[0] for name in names}
    for declared in (case.conformance, case.known_failures):
        odd = sorted(set(declared) - known)
        ensure(not odd, f"{', '.join(odd)} is no check of a {case.entry.kind}; they are {', '.join(sorted(names))}")
        mute = sorted(name for name, reason in declared.items() if not reason.strip())
        ensure(not mute, f"{', '.join(mute)} is left out without a reason: say why it does not apply")
    both = sorted(set(case.conformance) & set(case.known_failures))
    ensure(not both, f"{', '.join(both)} cannot both not apply and be expected to fail")


@check("described")
def check_described(case: Case) -> None:
    """`distill list` and `show` have only the summary, the docstring and the options' descriptions to go by.

    Mend: give the class a docstring, the record a summary of one line, and each option a string under its
    field.
    """
    summary = case.entry.component.summary
    ensure(summary.strip() and "\n" not in summary, "its summary is not one line")
    ensure((case.target.__doc__ or "").strip(), f"{case.target.__name__} has no docstring")
    bare = [name for name, info in case.target.model_fields.items() if not info.description]
    ensure(not bare, f"options without a description: {', '.join(bare)}. Write a string under each")


@check("options")
def check_options(case: Case) -> None:
    """Options come from YAML and go back to it: unknown keys are refused, and what was written is read again.

    Mend: keep `extra="forbid"`, give required options in `example`, and use types that JSON can hold.
    """
    json.dumps(case.target.model_json_schema())
    made = case.make()
    ensure(case.target.model_validate(made.model_dump(mode="json")) == made, "its options do not survive JSON")
    try:
        case.target.model_validate({**case.example, "no_such_option_": 1})
    except ValueError:
        return
    raise Unfit("an unknown option is taken in silence: a user's misspelling would change nothing")


@check("command", "command")
def check_command(case: Case) -> None:
    """A command is a function with a docstring whose parameters typer understands, under a name that is free.

    Mend: annotate every parameter with a type of typer's, and rename a command that the core has itself.
    """
    ensure(inspect.isfunction(case.target), f"{case.entry.component.target} is no function")
    ensure((case.target.__doc__ or "").strip(), f"{case.target.__name__} has no docstring")
    ensure(case.entry.name not in {_command_name(known) for known in app.registered_commands}, "the core has it itself")
    alone = typer.Typer(add_completion=False)
    alone.command()(case.target)
    typer.main.get_command(alone)


def _command_name(known: Any) -> str:
    return str(known.name or known.callback.__name__)


@check("toy/transform", "transform")
def check_transform(case: Case) -> None:
    """Surgery leaves a denoiser that answers in the shape of the state, and whose weights can be saved and
    loaded.

    Mend: replace submodules in place, and keep new weights in parameters.
    """

    def run(path: paths.GaussianPath) -> None:
        cast, batch = Cast(path, "student"), toy_batch()
        x: Any = batch.x
        with torch.random.fork_rng(devices=[]):
            case.make().apply(cast, "student")
        said: Any = cast["student"].ask(x, path.t_max / 2, batch.cond).value
        ensure(said.shape == x.shape, f"afterwards {tuple(x.shape)} gives {tuple(said.shape)}")
        tensors = {name: value.clone() for name, value in cast["student"].tensors().items()}
        cast["student"].load(load(save(tensors)))
        ensure(bool(cast["student"].parameters()), "it leaves the role nothing to train")

    on_some_path(run)


SHAPES = ((2,), (3, 16, 16), (4, 3, 16, 16), (2, 4096), (16, 3))
"""Shapes of a sample with which a lens is tried: a vector, a picture, a clip, a sound, points."""


@check("toy/lens", "lens")
def check_lens(case: Case) -> None:
    """A teacher's opinion reaches the student through the lens: it must be differentiable and draw no
    random numbers.

    Mend: compute with tensors only; declare `conformance` where the state is none of the usual shapes.
    """
    lens = case.make()
    errors = []
    for shape in SHAPES:
        x = Rng(0).normal(2, *shape).requires_grad_()
        try:
            shown = untouched(partial(lens, x))
        except Unfit:
            raise
        except Exception as error:  # not a state of its modality
            errors.append(f"{list(shape)}: {error}")
            continue
        total: Any = sum(leaf.sum() for leaf in tree.leaves(shown))
        ensure(
            total.requires_grad and bool(torch.autograd.grad(total, x)[0].abs().sum() > 0),
            "no gradient runs through it",
        )
        return
    raise Unfit(f"it takes none of the states {'; '.join(errors)}")


@check("samples", "dataset")
def check_samples(case: Case) -> None:
    """Samples are mappings with a state `x`, many enough for a batch, the same whenever they are asked for.

    Mend: return {"x": ..., conditions}; draw from a generator seeded by the row; share one shape, or use
    Ragged.
    """
    samples = untouched(lambda: case.make().open())
    ensure(len(samples) > 1, f"it has {len(samples)} samples")
    ensure(isinstance(samples[0], Mapping) and "x" in samples[0], "a sample is not a mapping with the key 'x'")
    first, again = collate([samples[0], samples[1]]), collate([samples[0], samples[1]])
    ensure(tree.batch_size(first["x"]) == 2, "two samples do not make a batch of two")
    ensure(equal(first["x"], again["x"]), "a sample differs when it is asked for again")


@check("files", "modality")
def check_files(case: Case) -> None:
    """A person sees samples through files and one picture: each sample is written, with the suffix that is
    announced.

    Mend: write one file or more a sample, named after `stem`, and return their paths; draw previews as PNG.
    """
    modality, samples = case.make(), case.batch(3).x
    with tempfile.TemporaryDirectory() as folder:
        written = untouched(lambda: modality.write(samples, Path(folder) / "out", "thing"))
        ensure(len(written) >= 3, f"3 samples gave {len(written)} files")
        for path in written:
            ensure(path.is_file() and path.stat().st_size, f"{path.name} is missing or empty")
            ensure(path.name.startswith("thing"), f"{path.name} does not begin with the stem 'thing'")
        ensure(any(path.suffix == modality.suffix for path in written), f"no file ends in {modality.suffix!r}")
        picture = modality.preview(samples, Path(folder) / "preview.png")
        ensure(picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", "the preview is not a PNG")


@check("measure", "metric")
def check_measure(case: Case) -> None:
    """A metric is a finite number, the same for the same samples, and prefers the data themselves to spoilt
    data.

    Mend: set `higher_is_better`; draw random directions and subsets from a fixed seed.
    """
    metric, batch = case.make(), case.batch(32)
    reference: Any = batch.x
    spread = max(float(leaf.float().std()) for leaf in tree.leaves(reference))
    spoilt = tree.combine((1.0, reference), (3 * spread + 0.1, Rng(1).normal_like(reference)))
    good, again, bad = (
        untouched(partial(metric.measure, x, reference, batch.cond)) for x in (reference, reference, spoilt)
    )
    ensure(all(map(torch.isfinite, map(torch.tensor, (good, bad)))), f"it measures {good} and {bad}")
    ensure(good == again, f"the same samples measure {good} and {again}")
    better = good > bad if metric.higher_is_better else good < bad
    ensure(better, f"the data measure {good:.4g}, the same with noise {bad:.4g}: it prefers the worse")
