"""Pictures with captions, and prompts alone: folders, tar shards, Hugging Face datasets, text files."""

from __future__ import annotations

import io
import json
import tarfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from distill.core import DataSource
from distill.core.data import Grouped, Worded
from distill.core.errors import DataError
from distill.image.datasets import SUFFIXES, fitted, opened
from distill.methods.cache import Cache, Table, digest
from distill.methods.captions import Conditions, Encoder, checked, encoder_of

Bucket = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Item:
    """One captioned picture, unread.

    Attributes:
        name: what messages call it.
        caption: what it shows.
        key: changes when the picture does.
        read: its bytes.
    """

    name: str
    caption: str
    key: str
    read: Callable[[], bytes]


class Captioned(Grouped, Worded):
    """Captioned pictures, each in the bucket that fits it best; conditions and latents come from caches."""

    def __init__(
        self, items: Sequence[Item], sizes: Sequence[Bucket], conditions: Conditions, latents: Latents | None
    ) -> None:
        self.items, self.sizes, self.conditions, self.latents = items, sizes, conditions, latents
        self._rank = {size: rank for rank, size in enumerate(sorted(set(sizes)))}

    @property
    def captions(self) -> Sequence[str]:
        return self.conditions.captions

    @property
    def groups(self) -> Sequence[int]:
        return [self._rank[size] for size in self.sizes]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([row]).items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        x = self.latents[rows] if self.latents else torch.stack([self._picture(row) for row in rows])
        return {"x": x, **self.conditions[rows]}

    def _picture(self, row: int) -> Tensor:
        return pixels(self.items[row], self.sizes[row])


def pixels(item: Item, size: Bucket) -> Tensor:
    """A picture [3, H, W] in [−1, 1], cropped to its bucket."""
    return fitted(opened(io.BytesIO(item.read()), item.name), size, "RGB")


def encoder(name: str, tokens: int | None) -> Encoder:
    """The encoder of that name, or the encoders of the pipeline in a folder."""
    return encoder_of(name, tokens, _of_folder)


def _of_folder(folder: str, tokens: int | None) -> Encoder:
    from distill.image.pipeline import Pipeline

    return Pipeline(model=folder, tokens=tokens).encoder()


class Latents:
    """Latents of rows, kept on disk, bucket by bucket."""

    def __init__(self, items: Sequence[Item], sizes: Sequence[Bucket], model: str, folder: Path | None) -> None:
        from distill.image.pipeline import LatentImage

        code = LatentImage(model=model).code
        cache = Cache(folder / "latents" if folder else None, "latents", fingerprint(model, "vae"))
        self.tables: dict[Bucket, Table] = {}
        self.places: list[tuple[Bucket, int]] = [((0, 0), 0)] * len(items)
        for size in sorted(set(sizes)):
            rows = [row for row, each in enumerate(sizes) if each == size]
            for place, row in enumerate(rows):
                self.places[row] = (size, place)
            self.tables[size] = cache.table(
                [items[row] for row in rows], partial(_key, size), partial(_coded, code, size)
            )

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        parts = [self.tables[size][[place]]["x"] for size, place in (self.places[row] for row in rows)]
        return torch.cat(parts).float()


def _key(size: Bucket, item: Item) -> str:
    return f"{item.key} {size}"


def _coded(code: Callable[[Tensor], Tensor], size: Bucket, items: Sequence[Item]) -> Mapping[str, Tensor]:
    return {"x": code(torch.stack([pixels(item, size) for item in items])).half()}


def fingerprint(model: str, part: str) -> str:
    """Of a part of a pipeline's folder: names, sizes and excerpts of its files."""
    from distill.image.pipeline import locate

    files = sorted(path for path in (locate(model) / part).rglob("*") if path.is_file())
    return digest(*(f"{path.name} {excerpts(path)}" for path in files))


def excerpts(path: Path, pieces: int = 64, size: int = 4096) -> str:
    """Digest of a file's size and of evenly spaced pieces: weights of many gigabytes are not read through."""
    total = path.stat().st_size
    with path.open("rb") as file:
        said = [str(total)]
        for index in range(pieces):
            file.seek(index * max(0, total - size) // (pieces - 1))
            said.append(file.read(size).hex())
    return digest(*said)


# ---------------------------------------------------------------- buckets


def buckets(size: int, ratio: float, step: int) -> list[Bucket]:
    """Widths and heights in multiples of `step`, of about size² pixels, with sides that differ by `ratio` at most.

    The buckets of SDXL (Podell et al. 2023, arXiv:2307.01952, appendix I) are size 1024, ratio 4, step 64.
    """
    if ratio == 1:
        return [(size, size)]
    if size % step:
        raise DataError(f"buckets have sides in multiples of 'step' {step}, and 'size' {size} is none: change either")
    found = [
        (width, max(step, round(size * size / width / step) * step))
        for width in range(size, int(size * ratio) + 1, step)
    ]
    fit = [sides for sides in found if max(sides) <= ratio * min(sides)]
    return sorted({*fit, *((height, width) for width, height in fit)})


def nearest(sides: tuple[int, int], known: Sequence[Bucket]) -> Bucket:
    """The bucket whose shape is nearest to a picture's, in the logarithm of width over height."""
    shape = torch.tensor(sides[0] / sides[1]).log()
    return min(known, key=lambda bucket: float((shape - torch.tensor(bucket[0] / bucket[1]).log()).abs()))


# ---------------------------------------------------------------- sources


class CaptionedSource(DataSource):
    """What sources of captioned pictures share: sizes, the encoder of captions, caches."""

    size: PositiveInt = 64
    """Side of the square in pixels; with buckets, the square root of their area."""
    ratio: float = Field(1.0, ge=1)
    """Largest ratio of a picture's sides; above 1 pictures are sorted into buckets of equal shape."""
    step: PositiveInt = 64
    """Sides of buckets are multiples of this many pixels."""
    encoder: str = "minilm"
    """Who encodes captions: minilm, wordllama, or the folder of a pipeline."""
    tokens: PositiveInt | None = None
    """Length of the text; the encoder's own if None."""
    latents: str = ""
    """Folder of a pipeline whose autoencoder turns pictures into latents; pixels if empty."""
    cache: Path | None = None
    """Folder of the caches; one in the home folder if None."""

    def open(self, split: str = "train") -> Dataset[Any]:
        items = self.items()
        known = buckets(self.size, self.ratio, self.step)
        sizes = [self._bucket(item, known) for item in items]
        conditions = Conditions([item.caption for item in items], encoder(self.encoder, self.tokens), self.cache)
        latents = Latents(items, sizes, self.latents, self.cache) if self.latents else None
        return Captioned(items, sizes, conditions, latents)

    def _bucket(self, item: Item, known: Sequence[Bucket]) -> Bucket:
        if len(known) == 1:
            return known[0]
        return nearest(opened(io.BytesIO(item.read()), item.name).size, known)

    @abstractmethod
    def items(self) -> list[Item]:
        """The captioned pictures, unread."""


NO_FOLDER = {"samples": "there are no captioned pictures that every machine has"}


class CaptionedFolder(CaptionedSource):
    """A folder of pictures with captions: `cat.txt` beside `cat.png`, or lines of `metadata.jsonl`."""

    example: ClassVar[dict[str, Any]] = {"folder": "pictures"}
    conformance: ClassVar[dict[str, str]] = NO_FOLDER
    folder: Path
    """Where the pictures are."""

    def items(self) -> list[Item]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder: give the folder that holds the pictures")
        listed = self.folder / "metadata.jsonl"
        captions = _listed(listed) if listed.exists() else _beside(self.folder)
        return [_on_disk(path, caption) for path, caption in captions]


def _beside(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pictures with the text files of the same name."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    for path in pictures:
        said = path.with_suffix(".txt")
        if not said.exists():
            raise DataError(f"{path} has no caption: write {said.name} beside it, or metadata.jsonl for all")
        yield path, checked(_text(said), str(said))


def _listed(path: Path) -> Iterator[tuple[Path, str]]:
    """Pictures with their lines of metadata.jsonl."""
    if not (lines := lines_of(path)):
        raise DataError(f"{path} is empty: write one line a picture, " + '{"file_name": "cat.png", "text": "a cat"}')
    for number, line in lines:
        try:
            about = json.loads(line)
            picture, said = path.parent / about["file_name"], about["text"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f'{path}:{number} is no {{"file_name": ..., "text": ...}}: {error}') from error
        yield picture, checked(str(said), f"the text of {path}:{number}")


def _on_disk(path: Path, caption: str) -> Item:
    if not path.is_file():
        raise DataError(f"{path} is named in metadata.jsonl, and there is no such file")
    state = path.stat()
    return Item(str(path), caption, f"{path.resolve()} {state.st_size} {state.st_mtime_ns}", path.read_bytes)


class WebDataset(CaptionedSource):
    """Tar shards of the webdataset layout: members `0001.png` and `0001.txt` (or `.json` with `caption`)."""

    example: ClassVar[dict[str, Any]] = {"shards": "data/*.tar"}
    conformance: ClassVar[dict[str, str]] = NO_FOLDER
    shards: str
    """Pattern of the shards' paths."""

    def items(self) -> list[Item]:
        paths = sorted(map(Path, glob(self.shards, recursive=True)))
        if not paths:
            raise DataError(f"no file matches {self.shards}: give a pattern such as data/*.tar")
        return [item for path in paths for item in _members(path)]


def _members(path: Path) -> Iterator[Item]:
    """The captioned pictures of one shard, by the names of its members up to the first dot."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    groups.setdefault(f"{folder}/{stem}", {})[f".{suffix.lower()}"] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path} is no plain tar: {error}. Unpack compressed shards first.") from error
    stamp = path.stat().st_mtime_ns
    for stem, parts in groups.items():
        pictures = [place for suffix, place in parts.items() if suffix in SUFFIXES]
        if pictures:
            name, (offset, size) = f"{path}:{stem.lstrip('/')}", pictures[0]
            yield Item(
                name,
                _caption(path, name, parts),
                f"{path.resolve()} {stamp} {offset}",
                partial(_slice, path, offset, size),
            )


def _caption(path: Path, name: str, parts: Mapping[str, tuple[int, int]]) -> str:
    if ".txt" in parts:
        return checked(_slice(path, *parts[".txt"]).decode("utf-8", "replace"), f"the caption of {name}")
    try:
        said = json.loads(_slice(path, *parts[".json"]))["caption"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name} has no caption: put a .txt, or a .json with 'caption', beside it") from error
    return checked(str(said), f"the caption of {name}")


def _slice(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


class HubDataset(CaptionedSource):
    """A dataset of the package `datasets`: a folder that `save_to_disk` wrote, a hub id, or a builder's name."""

    example: ClassVar[dict[str, Any]] = {"path": "pictures"}
    conformance: ClassVar[dict[str, str]] = NO_FOLDER
    path: str
    """What `load_from_disk` or `load_dataset` takes."""
    options: dict[str, Any] = {}
    """Further arguments of `load_dataset`, such as data_files."""
    split: str = "train"
    """Which split."""
    picture: str = "image"
    """Column of the pictures."""
    text: str = "text"
    """Column of the captions."""

    def items(self) -> list[Item]:
        found = self._rows()
        if odd := {self.picture, self.text} - set(found.column_names):
            raise DataError(
                f"{self.path} has no column {', '.join(sorted(odd))}; it has {', '.join(found.column_names)}: "
                "name them with 'picture' and 'text'"
            )
        if not len(found):
            raise DataError(f"{self.path} has no rows in its split '{self.split}'")
        captions, mark = found[self.text], found._fingerprint
        return [
            Item(name := f"{self.path}[{row}]", checked(str(said), f"the caption of {name}"), f"{mark} {row}",
                 partial(_bytes, found, row, self.picture))
            for row, said in enumerate(captions)
        ]  # fmt: skip

    def _rows(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise DataError(
                "this source is the package `datasets`, which is not installed: pip install datasets"
            ) from error
        try:
            if (Path(self.path) / "state.json").exists():
                found = datasets.load_from_disk(self.path)
            elif (Path(self.path) / "dataset_dict.json").exists():
                found = datasets.load_from_disk(self.path)[self.split]
            else:
                found = datasets.load_dataset(self.path, split=self.split, **self.options)
            return (
                found.cast_column(self.picture, datasets.Image(decode=False))
                if self.picture in found.column_names
                else found
            )
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"the dataset '{self.path}' cannot be loaded: {error}") from error


def _bytes(rows: Any, row: int, column: str) -> bytes:
    found = rows[row][column]
    content: bytes = found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()
    return content


# ---------------------------------------------------------------- prompts alone


class Prompts(DataSource):
    """Prompts alone, for methods that learn without pictures."""

    example: ClassVar[dict[str, Any]] = {"prompts": ["a cat"], "encoder": "wordllama"}
    conformance: ClassVar[dict[str, str]] = {"samples": "the package of an encoder is not on every machine"}
    prompts: tuple[str, ...] = ()
    """The prompts."""
    file: Path | None = None
    """A text file with one prompt a line; lines may also be {"text": ...}."""
    encoder: str = "minilm"
    """Who encodes them: minilm, wordllama, or the folder of a pipeline."""
    tokens: PositiveInt | None = None
    """Length of the text; the encoder's own if None."""
    cache: Path | None = None
    """Folder of the cache; one in the home folder if None."""

    def open(self, split: str = "train") -> Dataset[Any]:
        return Prompted(Conditions(self.texts(), encoder(self.encoder, self.tokens), self.cache))

    def texts(self) -> list[str]:
        """The prompts, from the recipe and from the file."""
        own = [checked(prompt, f"prompt {number}") for number, prompt in enumerate(self.prompts, 1)]
        lines = lines_of(self.file) if self.file else []
        if not own and not lines:
            raise DataError(f"{self.file or 'prompts'} is empty: write one prompt a line, or give 'prompts'")
        return own + [checked(_prompt(line), f"{self.file}:{number}") for number, line in lines]


def _prompt(line: str) -> str:
    """The prompt of a line, plain or JSON."""
    try:
        found = json.loads(line)
    except ValueError:
        return line
    return str(found["text"]) if isinstance(found, dict) and "text" in found else line


class Prompted(Worded):
    """Conditions without pictures."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions

    @property
    def captions(self) -> Sequence[str]:
        return self.conditions.captions

    def __len__(self) -> int:
        return len(self.conditions.places)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.conditions[[row]].items()}

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return self.conditions[rows]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no text file: {error}") from error


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Lines of a text file that are not blank, with their numbers."""
    return [(number, line.strip()) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
