"""Results on disk: made once for what they depend on, whole after any kill, and the files that writers make of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from distill.core import Options, Rng, __version__
from distill.core.errors import DataError
from distill.core.folder import Folder
from distill.core.recipe import split
from distill.core.run import checkpoint_of
from distill.core.store import digest_of, pack, unpack
from distill.pipeline.nodes import Edge, Model, WriteNode, failed

if TYPE_CHECKING:
    from distill.pipeline.graph import Pipeline, Step

CACHE = "cache"
"""The folder of results within that of the files."""


class Results:
    """What a pipeline has made, under names that follow from everything that it depends on."""

    def __init__(self, pipeline: Pipeline, out: Path) -> None:
        self.pipeline, self.out, self.cache = pipeline, out, out / CACHE

    @cached_property
    def names(self) -> dict[str, str]:
        """The file of each node's result."""
        keys: dict[str, str] = {}
        for name, step in self.pipeline.steps.items():
            keys[name] = digest_of(
                {"is": self._identity(step), "of": {p: [keys[e.node], e.part] for p, e in step.node.inputs.items()}}
            )
        return {name: f"{name}-{key[:16]}.safetensors" for name, key in keys.items()}

    @cached_property
    def due(self) -> list[str]:
        """The nodes that have to be run: their results are missing, and somebody needs them."""
        steps, found = self.pipeline.steps, set[str]()
        needed = {name for name in steps if not any(name in self._sources(each) for each in steps.values())}
        for name in reversed(steps):
            if name in needed and not (self.cache / self.names[name]).exists():
                found.add(name)
                needed |= self._sources(steps[name])
        return [name for name in steps if name in found]

    def make(self, tell: Callable[[str], None]) -> dict[str, list[Path]]:
        """Run what is due, one node after the other, and put the files of writers into the folder."""
        folder = Folder(self.cache, {"what": "results of a pipeline"}, "--out")
        steps, written = self.pipeline.steps, {}
        for number, (name, step) in enumerate(steps.items(), 1):
            started = time.perf_counter()
            if name in self.due:
                tell(f"{number}/{len(steps)}  {name} ...")
                folder.fill([self.names[name]], lambda _, step=step: self._content(step))  # type: ignore[misc]
            spent = f"made in {time.perf_counter() - started:.1f} s" if name in self.due else "as before"
            tell(f"{number}/{len(steps)}  {name}: {spent}")
            if isinstance(step.node, WriteNode):
                written[name] = self._publish(name)
        return written

    def read(self, edge: Edge) -> Any:
        """The result that an edge carries."""
        found = unpack(self._tensors(edge.node))["x"]
        return found[edge.part] if edge.part else found

    def _sources(self, step: Step) -> set[str]:
        return {edge.node for edge in step.node.inputs.values()}

    def _tensors(self, name: str) -> dict[str, Tensor]:
        path = self.cache / self.names[name]
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} is missing or damaged ({error}): delete it, and it is made anew") from error

    def _content(self, step: Step) -> bytes:
        """A node's result as the bytes of a file; it depends on nothing but what its name tells."""
        given = {port: self.read(edge) for port, edge in step.node.inputs.items()}
        seed = self._seed(step)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                made = step.node.make(self.pipeline.world, step.part, given, seed)
            flat = pack({"x": made})
        except Exception as error:  # whatever a component raises is told with its place
            raise failed(self.pipeline.place(step.name), step.name, error) from error
        return save({name: value.detach().cpu().clone().contiguous() for name, value in flat.items()})

    def _seed(self, step: Step) -> int:
        own = Rng(self.pipeline.graph.seed).fork(step.name).seed
        return own if step.node.seed is None else step.node.seed

    def _publish(self, name: str) -> list[Path]:
        """The files of a writer, each written aside and renamed; one that is as it shall be is left alone."""
        paths = []
        for ending, content in unpack(self._tensors(name))["x"].items():
            path = self.out / f"{name}{ending}"
            paths.append(path)
            held, aside = bytes(content.numpy()), path.with_name(f".{path.name}.part")
            if path.is_file() and path.read_bytes() == held:
                aside.unlink(missing_ok=True)
                continue
            with aside.open("wb") as file:
                file.write(held)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        return paths

    # ------------------------------------------------------------ what results depend on

    def _identity(self, step: Step) -> dict[str, Any]:
        registry, node = self.pipeline.world.registry, step.node
        part = step.part.options if isinstance(step.part, Model) else step.part
        known: dict[str, Any] = {"seed": self._seed(step), "said": node.said(), "torch": torch.__version__}
        if not isinstance(part, Options):  # the result of a run
            folder = Path(str(node.reference))
            return known | {"run": [_digest(folder / "recipe.yaml"), _digest(checkpoint_of(folder))]}
        reference = step.part.reference if isinstance(step.part, Model) else node.reference
        entry = registry.find(node.kind, split(reference, self.pipeline.world.source, ())[0])
        return known | {
            "options": part.model_dump(mode="json"), "target": entry.component.target, "core": __version__,
            "version": f"{entry.plugin.distribution} {entry.plugin.version}",
            "files": [_digest(path) for path in _paths(part.model_dump())],
        }  # fmt: skip


def _paths(values: Any) -> Iterator[Path]:
    """The files and folders that options name."""
    if isinstance(values, Mapping):
        for value in values.values():
            yield from _paths(value)
    elif isinstance(values, Path) or (isinstance(values, str) and "/" in values):
        if Path(values).exists():
            yield Path(values)


def _digest(path: Path) -> str:
    """A fingerprint of a file, or of all files of a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inside = sorted(each for each in path.rglob("*") if each.is_file())
    return digest_of([[str(each.relative_to(path)), _digest(each)] for each in inside])
