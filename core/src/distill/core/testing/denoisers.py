"""Checks of denoisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from distill.core import paths, tree
from distill.core.contracts import Batch
from distill.core.denoiser import Denoiser
from distill.core.prediction import Prediction
from distill.core.rng import Rng
from distill.core.roles import Role
from distill.core.testing.fit import close, ensure, equal
from distill.core.testing.kit import Case, check


@dataclass(frozen=True)
class Trial:
    """A denoiser with something to ask it: states of standard normal values, or tokens, at spread times."""

    denoiser: Denoiser
    x: Any
    t: Tensor
    cond: dict[str, Any]

    @classmethod
    def of(cls, case: Case, size: int = 3) -> Trial:
        """The component's denoiser, built and set to evaluation."""
        denoiser = case.make().build().eval()
        _, _, cond = denoiser.example(size)
        path, rng = denoiser.path, Rng(0)
        if isinstance(path, paths.CategoricalPath):
            x = rng.integers(path.vocabulary, size, *denoiser.shape)
        else:
            x = Batch(size, shape=denoiser.shape).noise(rng)
        t = path.t_min + (path.t_max - path.t_min) * torch.linspace(0.3, 0.7, size)
        return cls(denoiser, x, t, cond)

    @torch.no_grad()
    def ask(self, rows: Tensor, **options: Any) -> Prediction:
        """The prediction for some of the samples."""
        cond = {name: tree.index(value, rows) for name, value in self.cond.items()}
        return self.denoiser.predict(tree.index(self.x, rows), self.t[rows], cond, **options)

    @property
    def all(self) -> Tensor:
        """Every row."""
        return torch.arange(len(self.t))


@check("shape", "denoiser")
def check_shape(case: Case) -> None:
    """A prediction has the structure, shape and dtype of the state; the arithmetic of paths depends on it.

    Mend: crop what the network pads, split off learnt variances, and cast back what it computes in half
    precision.
    """
    trial = Trial.of(case)
    said = trial.ask(trial.all)
    for x, value in zip(tree.leaves(trial.x), tree.leaves(said.value), strict=True):
        if said.kind != "logits":
            ensure(value.dtype == x.dtype, f"states of {x.dtype} are answered in {value.dtype}")
        shape = value.shape[: x.ndim] if said.kind == "logits" else value.shape
        ensure(shape == x.shape, f"states of shape {tuple(x.shape)} are answered in {tuple(value.shape)}")
        ensure(bool(torch.isfinite(value).all()), "the prediction holds infinities or NaN")


@check("times", "denoiser")
def check_times(case: Case) -> None:
    """Each sample has a time of its own, so a batch must say what its samples say one by one.

    Mend: broadcast t from the left ([B] to [B, 1, ...]) and never read only its first entry.
    """
    trial = Trial.of(case)
    alone = [trial.ask(row[None]).value for row in trial.all]
    close(trial.ask(trial.all).value, tree.concatenate(alone), "a batch and a loop over its samples")


@check("permutation", "denoiser")
def check_permutation(case: Case) -> None:
    """Samples of a batch do not see each other, whatever their order.

    Mend: look for reshapes that mix the batch with another axis, and for batch statistics.
    """
    trial = Trial.of(case)
    back = trial.all.flip(0)
    close(trial.ask(back).value, tree.index(trial.ask(trial.all).value, back), "a batch in another order")


@check("randomness", "denoiser")
def check_denoiser_randomness(case: Case) -> None:
    """A network that draws random numbers in evaluation, or from the global generator, spoils seeds
    everywhere.

    Mend: take noise as an input; turn dropout off in `eval()`.
    """
    trial = Trial.of(case)
    before = torch.get_rng_state()
    first, second = trial.ask(trial.all).value, trial.ask(trial.all).value
    ensure(torch.equal(before, torch.get_rng_state()), "it draws from the global random generator")
    ensure(equal(first, second), "it answers the same question twice in two ways")


@check("serialisation", "denoiser")
def check_serialisation(case: Case) -> None:
    """Weights travel as safetensors: what one process saved, another one must load and answer alike.

    Mend: keep everything that is learnt or drawn in parameters and buffers; share no storage between them.
    """
    trial = Trial.of(case)
    tensors = Role("student", trial.denoiser).tensors()
    content = save({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()})
    twin = Trial.of(case)
    Role("student", twin.denoiser).load(load(content))
    ensure(equal(trial.ask(trial.all).value, twin.ask(twin.all).value), "loaded weights give other predictions")


@check("taps", "denoiser")
def check_taps(case: Case) -> None:
    """Discriminators look at the features that a denoiser names; each name must give a tensor with a sample
    axis.

    Mend: name submodules that exist and that every call runs through.
    """
    trial = Trial.of(case)
    features = trial.ask(trial.all, taps=trial.denoiser.taps).features
    for name in trial.denoiser.taps:
        ensure(name in features, f"the tap {name!r} gives nothing: the network does not call that part")
        ensure(
            isinstance(features[name], Tensor) and len(features[name]) == 3,
            f"the tap {name!r} gives no [B, ...]",
        )
