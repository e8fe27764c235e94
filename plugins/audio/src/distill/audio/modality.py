"""Sound: waveforms [B, 1 or 2, T] or latents [B, N, 32 C], written as WAV, shown as waveforms over spectra."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import interpolate

from distill.audio import sound
from distill.audio.codecs import FromLatent, LatentCodec
from distill.audio.spectra import spectrum
from distill.core import Modality, Rng, Role, State
from distill.core.contracts import Streaming, Way
from distill.core.errors import DataError, RecipeError
from distill.core.probe import as_in_use

WIDTH, TALL, SHORT = 320, 96, 40
"""Pixels of a sound's picture from left to right, of its spectrum, and of its waveform."""
PATCH = 4
"""Tokens by which the length of a sound grows: every patch of a network of ours divides it."""
INK, PAPER = (31, 111, 235), 250


class Audio(Modality):
    """Sounds with one or two channels; latents of the codec that ships are decoded where somebody looks or listens."""

    suffix: ClassVar[str] = ".wav"
    units: ClassVar[dict[str, str]] = {"rate": "samples a second"}
    pair: ClassVar[tuple[str, str] | None] = ("music-teacher", "music-student")
    pair_steps: ClassVar[tuple[int, ...]] = (4,)
    pair_data: ClassVar[dict[str, Any] | None] = {
        "name": "chorales", "conditions": ["text", "chords"], "text": 32, "words": 6,
    }  # fmt: skip
    compared: ClassVar[int | None] = 512
    rate: PositiveInt = 16_000
    """Samples a second."""
    rounds: PositiveInt = 6
    """Rounds of Griffin and Lim's algorithm when latents are decoded."""
    shown: PositiveInt = 12
    """Most sounds in a picture; of more, evenly spaced ones are shown."""
    players: PositiveInt = 6
    """Sounds of teacher and student each on the listening page of a report."""

    @torch.no_grad()
    def decode(self, samples: State) -> Any:
        if is_sound(samples):
            return samples
        lens = FromLatent(rounds=self.rounds)
        assert isinstance(samples, Tensor)
        return torch.cat([lens(part) for part in samples.float().split(16)])

    def lasting(self, role: Role, request: Streaming) -> Any:
        """A waveform [1, C, T] of the seconds asked for, drawn as a whole; chords that end before it go on."""
        shape = role.denoiser.shape
        if request.start is not None or not isinstance(shape, tuple) or shape[0] in (1, 2):
            raise RecipeError("only latents of sound can be of any length, and they go on from nothing: no 'start'")
        count = round(request.seconds * self.rate)
        tokens = PATCH * -(-count // (PATCH * LatentCodec.hop * LatentCodec.frames))
        cond = dict(request.conditions[0][1])
        if "chords" in cond:
            told = cond["chords"][:, :tokens]
            cond["chords"] = torch.cat([told, told[:, -1:].expand(-1, tokens - told.shape[1], -1)], 1)
        rng = Rng(request.seed)
        with torch.inference_mode(), as_in_use(role):
            noise = rng.normal(1, tokens, *shape[1:], stream="sample/start")
            drawn = request.sampler.sample(role, noise, cond, rng)
        return self.decode(drawn)[..., :count]

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        heard = self.decode(samples)
        return [sound.write(each, folder / f"{stem}-{n:04d}.wav", self.rate) for n, each in enumerate(heard)]

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """Each sound's waveform over its spectrum, three in a row, as PNG."""
        from PIL import Image

        heard = self.decode(spread(samples, self.shown))
        sheet = tiled(torch.stack([picture(each, self.rate) for each in heard]), 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet.numpy()).save(path)
        return path

    def side_by_side(self, ways: Mapping[str, Way], folder: Path) -> dict[str, str]:
        """A picture of all ways, one row each, the page `listen.html` with players side by side, and WAV files."""
        from PIL import Image

        heard = {name: self.decode(way.draw(self.players)) for name, way in ways.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, sounds in heard.items():
            self.write(sounds, folder / "sounds", name.replace(", ", "-").replace(" ", "-"))
        rows = torch.cat([torch.stack([picture(each, self.rate) for each in sounds]) for sounds in heard.values()])
        Image.fromarray(tiled(rows, self.players).numpy()).save(folder / "beside.png")
        (folder / "listen.html").write_text(listening_page(heard, self.rate), encoding="utf-8")
        said = f"from top to bottom: {'; '.join(ways)}, from the same noises; to hear: listen.html, sounds/*.wav"
        return {"beside.png": said}


def is_sound(samples: State) -> bool:
    """Whether samples are waveforms: [B, 1 or 2, T].

    Raises:
        DataError: they are neither waveforms nor latents.
    """
    if not isinstance(samples, Tensor) or samples.ndim != 3:
        given = list(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise DataError(f"sounds are [B, 1 or 2, T], latents [B, N, 32 C], and these samples {given}")
    return samples.shape[1] in (1, 2)


def spread(samples: State, most: int) -> Any:
    """At most so many samples, evenly spaced, the first and the last among them."""
    assert isinstance(samples, Tensor)
    return samples if len(samples) <= most else samples[torch.linspace(0, len(samples) - 1, most).round().long()]


# ---------------------------------------------------------------- pictures


def picture(heard: Tensor, rate: int) -> Tensor:
    """Waveform over spectrum of one sound [C, T], low notes below: bytes [H, W, 3]."""
    mono = heard.detach().float().mean(0)
    return torch.cat([_waveform(mono), _spectrum(mono)])


def _waveform(mono: Tensor) -> Tensor:
    parts = mono.clamp(-1, 1).tensor_split(WIDTH)
    high, low = (torch.stack([pick(part) for part in parts]) for pick in (torch.max, torch.min))
    rows = torch.linspace(1, -1, SHORT)[:, None]
    inside = (rows <= high + 1 / SHORT) & (rows >= low - 1 / SHORT)
    return torch.where(inside[..., None], torch.tensor(INK), torch.tensor(PAPER)).byte()


def _spectrum(mono: Tensor) -> Tensor:
    """Magnitudes from -80 dB to 0 dB, on a logarithmic axis of tones."""
    level = (spectrum(mono, 2048, 256).abs().clamp_min(1e-4).log10() / 4 + 1).clamp(0, 1)
    last = level.shape[1] - 1
    places = torch.logspace(torch.tensor(6.0).log10().item(), torch.tensor(float(last)).log10().item(), TALL)
    tones = level.T[places.round().long()].flip(0)
    grey = interpolate(tones[None, None], size=(TALL, WIDTH), mode="bilinear", align_corners=False)[0, 0]
    return torch.stack([_ramp(grey, shift) for shift in (0.35, 0.0, -0.3)], -1)


def _ramp(grey: Tensor, shift: float) -> Tensor:
    return (255 * (grey * (1 + shift * (1 - grey) * 2)).clamp(0, 1)).round().byte()


def tiled(pictures: Tensor, columns: int) -> Tensor:
    """Pictures [N, H, W, 3] on one sheet, row by row with a line between them."""
    columns = min(columns, len(pictures))
    rows, (_, high, wide, _) = -(-len(pictures) // columns), pictures.shape
    sheet = torch.full((rows * (high + 4), columns * (wide + 4), 3), 255, dtype=torch.uint8)
    for n, each in enumerate(pictures):
        top, left = n // columns * (high + 4), n % columns * (wide + 4)
        sheet[top : top + high, left : left + wide] = each
    return sheet


# ---------------------------------------------------------------- listening

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>listen</title>
<meta name="viewport" content="width=device-width"><style>:root{{color-scheme:light dark}}
body{{font:16px/1.5 system-ui,sans-serif;margin:2rem}}th,td{{padding:.3rem .8rem;text-align:left}}
audio{{width:16rem}}</style></head><body><h1>Side by side, from the same noises</h1>
<table><tr><th></th>{names}</tr>{rows}</table></body></html>
"""


def listening_page(heard: Mapping[str, Tensor], rate: int) -> str:
    """A page of players, one column each way, one row each noise; the sounds [N, C, T] are in the page itself."""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in heard)
    count = min(len(sounds) for sounds in heard.values())
    rows = "".join(
        f"<tr><td>{n + 1}</td>{''.join(f'<td>{player(sounds[n], rate)}</td>' for sounds in heard.values())}</tr>"
        for n in range(count)
    )
    return PAGE.format(names=names, rows=rows)


def player(heard: Tensor, rate: int) -> str:
    """A player of one sound [C, T], which it holds as FLAC."""
    import soundfile

    file, loud = io.BytesIO(), max(1.0, float(heard.abs().max()))
    soundfile.write(file, (heard.detach().cpu().float() / loud).T.numpy(), rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'
