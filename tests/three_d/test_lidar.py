"""Windows of scans that follow from seed and number, files of every kind, and faults that are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.core import Ragged
from distill.core.data import batches
from distill.core.errors import DataError
from distill.three_d.lidar import Lidar, shipped, thinned
from distill.three_d.lidar_files import read_scan, write_points

SMALL = {"points": 128, "scan_points": 32, "count": 16}


def cloud(number=400, seed=0):
    return torch.randn(number, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor([8.0, 8.0, 0.5])


def write(points, path):
    """A scan in the form that its suffix says."""
    table = np.concatenate([points.numpy(), np.ones((len(points), 1), dtype="f4")], 1).astype("<f4")
    fields = "FIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
    head = f"# .PCD v0.7\nVERSION 0.7\n{fields}WIDTH {len(table)}\nHEIGHT 1\nPOINTS {len(table)}\nDATA "
    forms = {
        ".npy": lambda: np.save(path, table),
        ".bin": lambda: table.tofile(path),
        ".ply": lambda: write_points(points, path),
        ".pcd": lambda: path.write_bytes(f"{head}binary\n".encode() + table.tobytes()),
    }
    forms[path.suffix]()
    return path


@pytest.mark.parametrize("suffix", [".npy", ".bin", ".ply", ".pcd"])
def test_a_scan_is_read_from_every_kind_of_file(tmp_path, suffix):
    points = cloud()
    read = read_scan(write(points, tmp_path / f"scan{suffix}"))
    torch.testing.assert_close(read, points)


def test_pcd_in_ascii_with_fields_of_several_numbers(tmp_path):
    head = "VERSION 0.7\nFIELDS normal x y z\nSIZE 4 8 8 8\nTYPE F F F F\nCOUNT 2 1 1 1\nPOINTS 2\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(head + "9 9 1 2 3\n9 9 4 5 6\n")
    assert read_scan(tmp_path / "a.pcd").tolist() == [[1, 2, 3], [4, 5, 6]]


def test_rays_that_came_back_from_nothing_are_left_out(tmp_path):
    points = torch.cat([torch.zeros(5, 3), cloud(7)])
    assert len(read_scan(write(points, tmp_path / "a.bin"))) == 7


def test_points_that_are_no_numbers_are_named_or_left_out(tmp_path):
    points = cloud(10)
    points[3, 1], points[4, 0] = float("nan"), float("inf")
    path = write(points, tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a.npy has 2 points of 10 that are no numbers: clean it, or leave them out"):
        read_scan(path)
    assert len(read_scan(path, drop_invalid=True)) == 8


@pytest.mark.parametrize("points", [torch.zeros(0, 3), torch.zeros(9, 3)])
def test_an_empty_scan_is_named(tmp_path, points):
    with pytest.raises(DataError, match=rf"a.npy is empty: of {len(points)} points none lies away from the sensor"):
        read_scan(write(points, tmp_path / "a.npy"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ply", b"hello", "a.ply cannot be read as a scan: .* Mend or remove it"),
        ("a.pcd", b"hello", "a.pcd cannot be read as a scan"),
        (
            "a.pcd",
            b"FIELDS x\nTYPE F\nSIZE 4\nPOINTS 1\nDATA binary_compressed\n",
            "binary_compressed is not read: save",
        ),
        ("a.bin", b"12345678" * 3, r"6 numbers are no rows of 4 \(4 in KITTI, 5 in nuScenes\)"),
        ("a.npy", b"hello", "a.npy cannot be read as a scan"),
        ("a.xyz", b"1 2 3", "a.xyz is no scan: the suffixes that are read are .bin, .npy, .pcd, .ply"),
    ],
)
def test_files_that_are_no_scans_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_scan(tmp_path / name)


def test_folders_without_scans(tmp_path):
    with pytest.raises(DataError, match="holds no scans"):
        Lidar(folder=tmp_path).open()
    with pytest.raises(DataError, match="is no folder"):
        Lidar(folder=tmp_path / "none").open()


def test_thinning_keeps_the_first_point_of_each_cube():
    points = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [1.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    assert thinned(points, 1.0).tolist() == points[[0, 2, 3]].tolist() and len(thinned(points, 0.0)) == 4
    assert len(thinned(points[:0], 1.0)) == 0


def test_the_shipped_scans_are_real_and_of_32_beams():
    scan = shipped()
    away = scan.points.norm(dim=1)
    assert 30_000 < len(away) and 1.0 < float(away.min()) and float(away.max()) < 40
    beams = scan.beams(32)[scan.own].unique()
    assert len(beams) == 32 and 0.45 < scan.own.float().mean() < 0.55


def test_a_record_depends_on_the_seed_and_its_number_alone():
    few, many = Lidar(**SMALL).open(), Lidar(**{**SMALL, "count": 64}).open()
    assert torch.equal(few[5]["x"].values, many[5]["x"].values) and len(few) == 16
    assert not torch.equal(few[5]["x"].values, Lidar(**SMALL, seed=1).open()[5]["x"].values)


def test_a_batch_is_ragged_and_lies_ahead():
    source = Lidar(**SMALL, sector=20, depth=4)
    batch = next(batches(source.open(), 16))
    assert isinstance(batch.x, Ragged) and len(set(batch.x.lengths.tolist())) > 1
    assert 48 <= batch.x.lengths.min() and batch.x.lengths.max() <= 128 and batch.cond["scan"].lengths.max() <= 32
    azimuth = torch.rad2deg(torch.atan2(batch.x.values[:, 1], batch.x.values[:, 0]))
    away = batch.x.values[:, :2].norm(dim=1)
    assert azimuth.abs().max() < 10.01 and 3 <= away.min() and away.max() < 20
    assert torch.equal(batch.cond["truth"].values, batch.x.values)


def test_the_scan_is_a_part_of_what_the_sensor_saw():
    source = Lidar(sector=30, points=10**6, scan_points=10**6, voxel=0)
    record = source.open()[0]
    assert torch.cdist(record["scan"].values, record["x"].values).amin(1).max() < 0.01
    assert 4 * len(record["scan"].values) < 0.8 * len(record["x"].values)


def test_splits_share_no_direction():
    source = Lidar(**SMALL, held_out=(10.0, 70.0), sector=20)
    places = {split: [m for _, m, _ in source.open(split)._places(torch.Generator())] for split in ("train", "test")}
    assert 20 <= min(places["test"]) and max(places["test"]) <= 60
    assert all(70 + 10 <= m <= 10 - 10 + 360 for m in places["train"])


def test_a_folder_of_scans(tmp_path):
    (tmp_path / "b").mkdir()
    write(cloud(4000), tmp_path / "a.bin"), write(cloud(4000, 1), tmp_path / "b" / "c.npy")
    data = Lidar(folder=tmp_path, least=16, count=4).open()
    assert len(data.scans) == 2 and len(data[0]["x"].values) >= 16


def test_windows_that_hold_too_little_are_named():
    with pytest.raises(DataError, match="no window of 100000 points was found in 500 draws of split 'test': widen"):
        Lidar(least=100_000).open("test")[0]
