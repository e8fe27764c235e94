"""A teacher that knows a dataset by heart: the exact denoiser of its samples, each with a little noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from distill.core import Builder, Denoiser, Modality, Rng, Sampler, State, batches, tree
from distill.core.errors import RecipeError
from distill.core.paths import PATHS, GaussianPath, Joint
from distill.core.registry import default_registry
from distill.pipeline.film import Film

PathName = Literal["flow", "cosine", "karras", "trigonometric"]


class Remembered(Denoiser):
    """Posterior mean of `1/K Σ_k N(m_k, s² I)`, where the means are K samples of any structure.

    Of a joint state every modality has its own path and time, and all of them together say which sample it is. With
    `together` false each modality answers for itself: the law of modalities that know nothing of each other.

    Args:
        samples: the means, K of them.
        std: s.
        label: class of each sample [K]; one more than the largest is the null class. No conditions if None.
        together: whether the modalities of a joint state tell of each other.
    """

    def __init__(
        self, samples: State, std: float, path: GaussianPath, label: Tensor | None = None, together: bool = True
    ) -> None:
        classes = 0 if label is None else int(label.max()) + 1
        shape: Any = tree.tree_map(lambda x: torch.tensor(x.shape[1:]), samples)
        shape = {k: tuple(v.tolist()) for k, v in shape.items()} if isinstance(shape, dict) else tuple(shape.tolist())
        super().__init__(nn.Identity(), path, "x0", shape=shape, null={"label": classes} if classes else {})
        self.std, self.together, self.classes, self.joint = std, together, classes, isinstance(samples, Mapping)
        parts: Any = samples if isinstance(samples, Mapping) else {"": samples}
        self.names = list(parts)
        for n, part in enumerate(parts.values()):
            self.register_buffer(f"samples_{n}", part)
        self.register_buffer("label", torch.zeros(0) if label is None else label)

    def classes_of(self, size: int, rng: Rng, stream: str = "classes") -> dict[str, Tensor]:
        """Classes of samples that are drawn evenly, as conditions; none where samples have none."""
        if not self.classes:
            return {}
        label = self.get_buffer("label")
        return {"label": label[rng.integers(len(label), size, stream=stream)]}

    def _call(self, x: State, t: Any, cond: Mapping[str, Any], cache: Any) -> tuple[Any, Any]:
        states: Any = x if self.joint else {"": x}
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        levels = {name: (alpha[name], sigma[name]) if self.joint else (alpha, sigma) for name in self.names}
        said = {name: self._evidence(n, states[name], *levels[name]) for n, name in enumerate(self.names)}
        total, known = torch.stack(list(said.values())).sum(0), self._known(cond)
        shares = {name: ((total if self.together else said[name]) + known).softmax(1) for name in self.names}
        out = {name: self._mean(n, states[name], shares[name], *levels[name]) for n, name in enumerate(self.names)}
        return (out if self.joint else out[""]), None

    def _evidence(self, n: int, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What a modality says of each sample, as log-probability up to a constant: [B, K]."""
        means = self.get_buffer(f"samples_{n}").flatten(1)
        gap = alpha[:, None] ** 2 * means.square().sum(1) - 2 * alpha[:, None] * (x.flatten(1) @ means.T)
        return -gap / (2 * self._spread(alpha, sigma)[:, None])

    def _spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * self.std) ** 2 + sigma**2

    def _known(self, cond: Mapping[str, Any]) -> Tensor | float:
        """0 for samples of the class that is asked for, minus infinity for others: [B, K]."""
        if not self.classes or "label" not in cond:
            return 0.0
        asked, own = cond["label"][:, None], self.get_buffer("label")
        return torch.where((asked == own) | (asked == self.classes), 0.0, -torch.inf)

    def _mean(self, n: int, x: Tensor, share: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        middle = (share @ self.get_buffer(f"samples_{n}").flatten(1)).view_as(x)
        spread = self._spread(alpha, sigma)
        own: Any = tree.combine((alpha * self.std**2 / spread, x), (sigma**2 / spread, middle))
        return own


class RememberedData(Builder):
    """The exact denoiser of some of a dataset's samples; of a joint state each modality has its own path."""

    example: ClassVar[dict[str, Any]] = {"data": "turning-digits", "samples": 8}
    data: str
    """The dataset, by name."""
    options: dict[str, Any] = {}
    """Its options."""
    samples: PositiveInt = 512
    """How many of its samples are known."""
    split: Literal["train", "test"] = "train"
    """From which part of it."""
    std: PositiveFloat = 0.1
    """Standard deviation around each sample."""
    path: PathName = "flow"
    """Forward process, where `paths` says no other."""
    paths: dict[str, PathName] = {}
    """Forward process of each modality of a joint state."""
    together: bool = True
    """Whether the modalities of a joint state tell of each other; if not, each is judged alone."""
    labels: bool = True
    """Take the condition `label` of the data as a condition."""
    steps: PositiveInt = 32
    """Steps of its own sampler."""

    def build(self) -> Denoiser:
        fields = self.known()
        x = fields["x"]
        odd = set(self.paths) - set(x if isinstance(x, Mapping) else ())
        if odd:
            raise RecipeError(
                f"a path is given for {', '.join(sorted(odd))}, which samples of '{self.data}' do not have"
            )
        path: Any = PATHS[self.path]()
        if isinstance(x, Mapping):
            path = Joint(paths={name: PATHS[self.paths.get(name, self.path)]() for name in x})
        return Remembered(x, self.std, path, fields.get("label") if self.labels else None, self.together)

    def known(self) -> dict[str, Any]:
        """The samples, field by field."""
        source: Any = default_registry().load("dataset", self.data)
        dataset = source(**self.options).open(self.split)
        return fields_of(dataset, min(self.samples, len(dataset)))

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps)

    def modality(self) -> Modality | None:
        return film_of(set(self.paths))


def film_of(parts: set[str]) -> Modality | None:
    """Films, where states are clips and their sounds; None leaves the modality to others."""
    return Film() if parts == {"video", "audio"} else None


def fields_of(dataset: Any, count: int) -> dict[str, Any]:
    """Samples of a dataset, field by field, as one batch; which ones does not change."""
    batch = next(batches(dataset, count))
    return {"x": batch.x, **batch.cond}
