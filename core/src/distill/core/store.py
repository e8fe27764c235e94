"""Stores: what a network made once, as records in safetensors shards; and what tells one store from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill.core import scale, tree
from distill.core.data import Order, collate
from distill.core.errors import DataError
from distill.core.folder import ABOUT, Folder, facts
from distill.core.rng import Rng
from distill.core.roles import Role
from distill.core.tree import Masked, Ragged, State

LOOKED_AT = 16
"""Samples of a dataset that tell it from another one."""
PLAIN = (bool, int, float, str, tuple, list, type(None))
"""Types of settings that a network's configuration is read from."""
WRAPPERS = ("torch.distributed", scale.__name__)
"""Where classes come from that change how a module computes, and not what."""


class Store:
    """Records 0, 1, 2, ... in a folder: named states each, conditions among them.

    Args:
        path: the folder.
        what: what the records are, in a user's words: "pairs".
        identity: everything that they depend on, as JSON values.
        key: the recipe's key that names the folder.
        shard: records of one file, for a folder that is new.

    Raises:
        DataError: the folder is of another identity; every key that differs is named.
    """

    def __init__(
        self, path: Path, what: str, identity: Mapping[str, Any], *, key: str = "store", shard: int = 256
    ) -> None:  # fmt: skip
        about = {"what": what, "shard": shard, **identity}
        self.folder = Folder(path, about, key, free=("shard",))
        self.path, self.count = path, 0
        self._opened = lru_cache(maxsize=256)(_opened)
        self.shard = _shard_size(self.folder)

    def __len__(self) -> int:
        return self.count

    @property
    def digest(self) -> str:
        """A fingerprint of what the folder says about itself."""
        return digest_of(self.folder.about)

    def fill(self, count: int, make: Callable[[range], Mapping[str, State]], *, together: bool = False) -> Store:
        """Have the first `count` records, the missing ones made in whole shards.

        Args:
            make: the records of a range of numbers, as states of so many samples; what it says of a record may depend
                on nothing but the store's identity and the record's number (`RecordRng` draws so).
            together: only all processes at once can make any, as where each holds a share of a network's weights.
        """
        self.count = count
        fill = self.folder.fill_together if together else self.folder.fill
        fill(self._names(), partial(self._content, make))
        return self

    def full(self, count: int) -> Store | None:
        """The store with its first `count` records, if it has them."""
        self.count = count
        return self if all((self.path / name).exists() for name in self._names()) else None

    def read(self, rows: Sequence[int] | Tensor) -> dict[str, Any]:
        """Named states of some records, in the order of `rows`."""
        wanted = torch.as_tensor(rows, device="cpu")
        shards, parts, places = wanted // self.shard, [], []
        for shard in sorted(set(shards.tolist())):
            here = (shards == shard).nonzero().flatten()
            parts.append(tree.index(self._opened(self.path / self._name(shard)), wanted[here] % self.shard))
            places.append(here)
        found: dict[str, Any] = tree.index(tree.concatenate(parts), torch.cat(places).argsort())
        return found

    def _content(self, make: Callable[[range], Mapping[str, State]], place: int) -> bytes:
        made = make(range(place * self.shard, (place + 1) * self.shard))
        return save({name: value.detach().cpu().clone().contiguous() for name, value in pack(made).items()})

    def _names(self) -> list[str]:
        return [self._name(place) for place in range(-(-self.count // self.shard))]

    @staticmethod
    def _name(place: int) -> str:
        return f"{place:08d}.safetensors"


def reopened(path: Path, what: str, count: int, digest: str) -> Store | None:
    """The store that had that digest, where it lies untouched and holds so many records."""
    about = facts(path)
    if not (path / ABOUT).exists() or digest_of(about) != digest:
        return None
    store = Store(path, what, {name: value for name, value in about.items() if name != "what"})
    return store.full(count)


def _shard_size(folder: Folder) -> int:
    size = folder.about.get("shard")
    if not isinstance(size, int) or size < 1:
        raise DataError(f"{folder.path / ABOUT} says that a shard has {size} records: delete the folder")
    return size


def _opened(path: Path) -> Any:
    try:
        return unpack(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({error}): delete it, and it is made anew") from error


def pack(states: Mapping[str, Any], above: str = "") -> dict[str, Tensor]:
    """Named states as flat named tensors: `a/b` is b of the mapping a, `a@mask` the mask of a."""
    flat: dict[str, Tensor] = {}
    for name, value in states.items():
        place = f"{above}{name}"
        if isinstance(value, Tensor):
            flat[place] = value
        elif isinstance(value, Mapping):
            flat |= pack(value, f"{place}/")
        elif isinstance(value, Masked):
            flat |= {f"{place}@values": value.values, f"{place}@mask": value.mask}
        elif isinstance(value, Ragged):
            flat |= {f"{place}@values": value.values, f"{place}@lengths": value.lengths}
        else:
            raise DataError(f"records are kept as tensors, and '{place}' is a {type(value).__name__}")
    return flat


def unpack(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The states that were packed."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.replace("@", "/@").split("/")
        place = found
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return {name: _whole(value) for name, value in found.items()}


def _whole(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "@mask" in value:
        return Masked(value["@values"], value["@mask"])
    if "@lengths" in value:
        return Ragged(value["@values"], value["@lengths"])
    return {name: _whole(part) for name, part in value.items()}


class RecordRng(Rng):
    """Random streams of records: every row follows from the seed and its record's number alone.

    A draw of so many rows times the number of records gives each record as many, side by side. Numbers are drawn on
    the CPU, so that records do not depend on the device.
    """

    def __init__(self, seed: int, records: Sequence[int], device: torch.device | str = "cpu") -> None:
        super().__init__(_mixed(seed, "all"), device=device)
        self.each = [Rng(_mixed(seed, str(record))) for record in records]

    def normal(self, *shape: int, stream: str = "noise") -> Tensor:
        return self._drawn(shape, lambda each, own: each.normal(*own, stream=stream))

    def uniform(self, *shape: int, stream: str = "time") -> Tensor:
        return self._drawn(shape, lambda each, own: each.uniform(*own, stream=stream))

    def integers(self, high: int, *shape: int, stream: str = "index") -> Tensor:
        return self._drawn(shape, lambda each, own: each.integers(high, *own, stream=stream))

    def normal_like(self, state: State, *, stream: str = "noise") -> Any:
        if not isinstance(state, Ragged):
            return super().normal_like(state, stream=stream)
        parts = zip(self.each, state.split(), strict=True)
        drawn = [each.normal(*part.shape, stream=stream) for each, part in parts]
        return Ragged(torch.cat(drawn).to(state.values), state.lengths)

    def _drawn(self, shape: Sequence[int], draw: Callable[[Rng, tuple[int, ...]], Tensor]) -> Tensor:
        share, rest = divmod(shape[0], len(self.each))
        if rest:
            raise DataError(f"{shape[0]} rows cannot be drawn for {len(self.each)} records: give each as many")
        return torch.cat([draw(each, (share, *shape[1:])) for each in self.each]).to(self.device)


def _mixed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7])


# ---------------------------------------------------------------- what records depend on


def digest_of(value: Any) -> str:
    """A fingerprint of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A fingerprint of named tensors: names, types, shapes and every value."""
    said = hashlib.sha256()
    for name, shared in sorted(tensors.items()):
        tensor = scale.whole(shared)
        said.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        said.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return said.hexdigest()[:24]


def identity_of(role: Role) -> dict[str, Any]:
    """What a role's answers depend on: fingerprints of its weights, its network's settings and its guidance."""
    guidance = role.guidance
    scale.settle(role.module)
    terms = [[_plain(weight), sorted(dropped)] for weight, dropped in guidance.terms]
    return {
        "weights": digest_of_tensors(role.module.state_dict()),
        "config": digest_of([*map(_settings, role.module.modules()), repr(role.denoiser.path)]),
        "guidance": digest_of(
            [terms, guidance.interval, guidance.rescale, _plain(guidance.null), _plain(role.scalars)]
        ),
    }


def _settings(module: torch.nn.Module) -> list[Any]:
    """A module's class and what it was told that is not a parameter."""
    known = {name: value for name, value in vars(module).items() if name[0] != "_" and name != "training"}
    kinds = (kind for kind in type(module).__mro__ if not kind.__module__.startswith(WRAPPERS))
    return [next(kinds).__qualname__, {name: repr(value) for name, value in known.items() if isinstance(value, PLAIN)}]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return digest_of_tensors({"": value}) if isinstance(value, Tensor) else repr(value)


class Rows:
    """Conditions of records, drawn from a dataset: each of its rows once, in a random order, then all again.

    Args:
        dataset: where from.
        seed: of the order.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.length = dataset, len(dataset)  # type: ignore[arg-type]
        if not self.length:
            raise DataError("the dataset has no samples: check its folder, split and filters")
        self._order = Order(self.length, 1, seed, 0, 0, 1)

    def __call__(self, records: Sequence[int]) -> dict[str, Any]:
        """The conditions of some records."""
        return self._read([row for record in records for row in self._order.rows(record)])

    @property
    def digest(self) -> str:
        """A fingerprint of the dataset's length and of the conditions of a few of its rows."""
        few = self._read(list(range(0, self.length, max(1, self.length // LOOKED_AT))))
        return digest_of([self.length, digest_of_tensors(pack(few))] if few else None)

    def _read(self, rows: list[int]) -> dict[str, Any]:
        unused: Any = torch.Generator()  # else the loader would draw from the global generator
        loader: DataLoader[Any] = DataLoader(
            self.dataset, batch_sampler=[rows], collate_fn=_conditions, generator=unused
        )  # fmt: skip
        found: dict[str, Any] = next(iter(loader))
        return found


def _conditions(samples: Any) -> dict[str, Any]:
    """Samples without their states, which may differ in shape."""
    if isinstance(samples, Mapping):
        return {name: value for name, value in samples.items() if name != "x"}
    kept = [{name: value for name, value in sample.items() if name != "x"} for sample in samples]
    found: dict[str, Any] = collate(kept)
    return found
