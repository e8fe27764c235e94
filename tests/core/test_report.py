"""The report: one file, that shows what it is given and nothing from elsewhere."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

from PIL import Image

from distill.core import report


class Tags(HTMLParser):
    """Checks that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_whole_and_escaped(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    page = report.page(
        "a <b>", report.section("S & s", report.table(["", "x"], [["<i>", "1"]]), report.code("a < b")),
        report.picture(tmp_path / "a.png", "<3"), report.folded("more", report.curves({"l<": [(1, 2.0), (2, 1.0)]})),
    )  # fmt: skip
    assert Tags(page).open == [] and "<i>" not in page and "a &lt;b&gt;" in page and "l&lt;" in page
    assert "data:image/png;base64," in page and "prefers-color-scheme:dark" in page and "http" not in page


def points(svg: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]*)"', svg)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


def test_a_curve_falls_where_its_values_fall_and_stays_inside():
    drawn = points(report.curves({"loss": [(step, 1 / step) for step in range(1, 400)]}))
    assert all(a[1] <= b[1] and a[0] < b[0] for a, b in zip(drawn, drawn[1:], strict=False))
    assert all(56 <= x <= 410 and 14 <= y <= 148 for x, y in drawn) and len(drawn) <= 120


def test_curves_of_one_point_of_equal_points_and_of_infinite_ones():
    assert len(points(report.curves({"a": [(1, 3.0)]}))) == 1
    assert len({y for _, y in points(report.curves({"a": [(1, 3.0), (2, 3.0)]}))}) == 1
    odd = report.curves({"a": [(1, 3.0), (2, math.inf), (3, math.nan), (4, 2.0)], "b": [(1, math.nan)]})
    assert "nan" not in odd and "inf" not in odd and odd.count("<svg") == 2


def test_smoothing_keeps_the_mean_and_the_last_step():
    smooth = report.smooth([(float(n), float(n % 2)) for n in range(1000)], most=100)
    assert len(smooth) == 100 and smooth[-1][0] == 999 and all(y == 0.5 for _, y in smooth)
    assert report.smooth([(1.0, 2.0)]) == [(1.0, 2.0)]
