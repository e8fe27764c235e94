"""PLY files keep every bit and the names that other tools look for; broken ones are answered with one clear message."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from distill.core.errors import DataError
from distill.three_d.files import read_ply, write_ply, write_splat
from distill.three_d.render import PARTS


@pytest.mark.parametrize("harmonics", [0, 3, 8, 15])
def test_a_ply_brings_every_bit_back(scene, tmp_path, harmonics):
    before = scene(9, harmonics)
    after = read_ply(write_ply(before, tmp_path / "a.ply"))
    assert all(torch.equal(after[part], before[part]) for part in PARTS)


def test_it_has_the_fields_of_other_tools_in_their_order(scene, tmp_path):
    path = write_ply(scene(4, 3), tmp_path / "a.ply")
    head = path.read_bytes().partition(b"end_header")[0].decode()
    names = [line.split()[-1] for line in head.splitlines() if line.startswith("property float ")]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9:] == [*(f"f_rest_{n}" for n in range(9)), "opacity", *(f"scale_{n}" for n in range(3)),
                         *(f"rot_{n}" for n in range(4))]  # fmt: skip
    (cloud,) = trimesh.load(path).geometry.values() if hasattr(trimesh.load(path), "geometry") else [trimesh.load(path)]
    np.testing.assert_array_equal(np.asarray(cloud.vertices, "f4"), scene(4, 3)["means"].numpy())


def test_rest_coefficients_stand_channel_by_channel(scene, tmp_path):
    parts = scene(2, 3)
    raw = np.frombuffer(write_ply(parts, tmp_path / "a.ply").read_bytes().partition(b"end_header\n")[2], "<f4")
    np.testing.assert_array_equal(raw.reshape(2, -1)[:, 9:12], parts["shN"][:, :, 0].numpy())


def test_other_orders_types_and_ascii_are_read(tmp_path):
    names = ["opacity", "rot_0", "rot_1", "rot_2", "rot_3", "z", "y", "x", "scale_0", "scale_1", "scale_2", "f_dc_2",
             "f_dc_1", "f_dc_0"]  # fmt: skip
    head = ["ply", "format ascii 1.0", "comment by hand", "element vertex 1", *(f"property double {n}" for n in names)]
    path = tmp_path / "a.ply"
    path.write_text("\n".join([*head, "end_header", " ".join(map(str, range(14))), ""]))
    scene = read_ply(path)
    assert scene["means"].tolist() == [[7, 6, 5]] and scene["quats"].tolist() == [[1, 2, 3, 4]]
    assert scene["sh0"].tolist() == [[[13, 12, 11]]] and scene["shN"].shape == (1, 0, 3)


def test_a_splat_has_32_bytes_a_gaussian_the_largest_first(scene, tmp_path):
    parts = scene(6)
    raw = write_splat(parts, tmp_path / "a.splat").read_bytes()
    first = int((parts["scales"].sum(1).exp() * parts["opacities"].sigmoid()).argmax())
    assert len(raw) == 6 * 32
    np.testing.assert_array_equal(np.frombuffer(raw[:12], "<f4"), parts["means"][first].numpy())
    opacity = int((255 * parts["opacities"][first].sigmoid()).round())
    assert raw[27] == opacity


def spoilt(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: spoilt(p, b"rot_2", b"turn2"), "lacks rot_2 and looks like points or a mesh"),
        (lambda p: spoilt(p, b"property float f_rest_8\n", b""), "8 fields f_rest"),
        (lambda p: p.write_bytes(p.read_bytes()[:-8]) and p, "cut short: its header promises 5 Gaussians"),
        (lambda p: p.write_bytes(b"hello") and p, "no PLY file"),
        (lambda p: spoilt(p, b"element vertex", b"element face"), "does not begin with vertices"),
        (lambda p: spoilt(p, b"property float x", b"property list uchar int x"), "plain numbers"),
        (lambda p: p.with_name("none.ply"), "is not there"),
        (
            lambda p: spoilt(p, p.read_bytes()[-4:], np.float32("nan").tobytes()),
            "quats hold 1 values that are no numbers",
        ),
    ],
)
def test_a_file_that_is_no_scene_is_refused_with_the_reason(scene, tmp_path, spoil, message):
    path = spoil(write_ply(scene(5, 3), tmp_path / "a.ply"))
    with pytest.raises(DataError, match=message):
        read_ply(path)
