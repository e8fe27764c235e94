"""Pictures on one sheet, and films that can be read back."""

from __future__ import annotations

import av
import torch

from distill.methods.sheets import BORDER, tiled, write_mp4


def test_pictures_stand_row_by_row_with_a_line_between_them():
    sheet = tiled(torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 4, 6, 3), 2)
    assert sheet.shape == (11, 15, 3) and (sheet[0] == BORDER).all() and (sheet[:, 7] == BORDER).all()
    assert (sheet[1:5, 8:14] == 1).all() and (sheet[6:10, 1:7] == 2).all() and (sheet[6:10, 8:14] == BORDER).all()


def test_a_film_is_written_frame_by_frame_without_odd_lines(tmp_path):
    shades = (torch.full((33, 17, 3), 60 * n, dtype=torch.uint8) for n in range(4))
    write_mp4(shades, tmp_path / "film.mp4", 12.5)
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 12.5
    assert [frame.shape for frame in frames] == [(32, 16, 3)] * 4
    assert all(abs(float(frame.mean()) - 60 * n) < 6 for n, frame in enumerate(frames))
