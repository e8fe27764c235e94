"""Films are MP4 files with pictures and sound of equal length."""

from __future__ import annotations

import av
import pytest
import torch

from distill.core.errors import DataError
from distill.pipeline.film import Film
from distill.video.modality import Video


def test_a_film_has_the_clip_and_its_sound(tmp_path):
    tone = 0.5 * (torch.arange(32_000) / 16_000 * 440 * 2 * torch.pi).sin()[None, None]
    state = {"video": torch.rand(1, 12, 1, 32, 32) * 2 - 1, "audio": tone}
    (path,) = Film(video_rate=8.0).write(state, tmp_path, "film")
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.width, video.frames, float(video.average_rate), audio.rate) == (256, 12, 8, 16_000)
        heard = torch.cat([torch.from_numpy(frame.to_ndarray()) for frame in file.decode(audio=0)], 1)
    assert abs(heard.shape[1] - 24_000) < 2_100 and 0.2 < float(heard[:, 4_000:20_000].std()) < 0.5


def test_a_film_is_the_same_bytes_twice_and_has_a_preview(tmp_path):
    state = {"video": torch.zeros(2, 5, 3, 6, 7), "audio": torch.zeros(2, 1, 100)}
    first, second = (Film().write(state, tmp_path / str(n)) for n in range(2))
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in second] and len(first) == 2
    assert Film().preview(state, tmp_path / "p.png").read_bytes()[1:4] == b"PNG"


def test_small_clips_are_the_same_bytes_whatever_memory_holds(tmp_path):
    torch.manual_seed(0)
    small = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4) * 2 - 1, (32, 32), mode="bicubic")[None]
    files = set()
    for n in range(30):
        filler = [torch.full((size,), n, dtype=torch.uint8) for size in (4096, 12_288, 100_000, 1000 * n + 1)]
        files.add(Video().write(small, tmp_path)[0].read_bytes())
        del filler
    assert len(files) == 1


@pytest.mark.parametrize("audio", [None, torch.zeros(2, 1, 9), torch.zeros(9)])
def test_what_is_no_film_is_refused(audio, tmp_path):
    with pytest.raises(DataError, match="film"):
        Film().write({"video": torch.zeros(1, 2, 1, 4, 4), "audio": audio}, tmp_path)
