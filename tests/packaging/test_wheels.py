"""Wheels: what is in them, that they share one namespace however they are installed, and what spoils it."""

from __future__ import annotations

import json
import shutil
from itertools import permutations, product
from zipfile import ZipFile

import pytest

NAMES = ("core", "methods", "image", "video", "audio", "three_d", "pipeline", "studio")
DISTRIBUTIONS = {"three_d": "distill-3d"}
USE = f"import {', '.join(f'distill.{name}' for name in NAMES)}, distill; assert distill.__file__ is None"


def assert_works(env):
    done = env.python("-c", USE)
    assert done.returncode == 0, done.stderr
    listed = json.loads(env.distill("plugins", "--json").stdout)
    assert {record["distribution"]: record["state"] for record in listed} == {
        DISTRIBUTIONS.get(name, f"distill-{name}"): "ok" for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_holds_its_sources_and_no_part_of_the_namespace_itself(wheels, packages, name):
    source = packages[name] / "src"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    packed = {file for file in ZipFile(wheels[name]).namelist() if ".dist-info/" not in file}
    assert packed == {file for file in files if not file.endswith(".pyc")}
    assert f"distill/{name}/py.typed" in packed and "distill/__init__.py" not in packed


@pytest.mark.parametrize("name", NAMES)
def test_a_stray_init_fails_the_build(packages, build, tmp_path, name):
    shutil.copytree(packages[name], tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / name / "src/distill/__init__.py").touch()
    done = build(tmp_path / name, tmp_path / "out")
    assert done.returncode != 0 and "src/distill/__init__.py must not exist" in done.stdout + done.stderr


@pytest.mark.parametrize("file", ["hatch_build.py", "LICENSE"])
def test_what_every_package_needs_is_the_same_everywhere(packages, file):
    assert len({(package / file).read_bytes() for package in packages.values()}) == 1


@pytest.mark.parametrize("order", list(permutations(NAMES))[::5041], ids="-".join)
def test_wheels_install_in_every_order(fresh, wheels, order):
    for name in order:
        fresh.install(wheels[name])
    assert_works(fresh)


@pytest.mark.parametrize("editable", list(product([False, True], repeat=len(NAMES)))[1::31], ids=str)
def test_editable_and_regular_installs_mix(fresh, wheels, editables, editable):
    chosen = [(editables if live else wheels)[name] for name, live in zip(NAMES, editable, strict=True)]
    fresh.install(*chosen)
    assert_works(fresh)


def test_a_module_that_hides_the_namespace_is_named(fresh, editables, tmp_path):
    fresh.install(*editables.values())
    stray = tmp_path / "elsewhere" / "distill" / "__init__.py"
    stray.parent.mkdir(parents=True)
    stray.touch()
    done = fresh.distill("plugins", "--check", PYTHONPATH=str(tmp_path / "elsewhere"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(stray) in done.stderr and "remove or rename it" in done.stderr


def test_a_distribution_that_hides_the_namespace_is_named(fresh, editables):
    fresh.install(*editables.values())
    (fresh.packages / "distill").mkdir()
    (fresh.packages / "distill/__init__.py").write_text("raise RuntimeError('not ours')")
    info = fresh.packages / "distill_framework-0.1.11.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distill-framework\nVersion: 0.1.11\n")
    (info / "RECORD").write_text("distill/__init__.py,,\n")
    done = fresh.distill("plugins", "--check")
    assert done.returncode == 2 and "pip uninstall distill-framework" in done.stderr


def test_a_stray_file_among_the_wheels_is_named_though_all_works(fresh, wheels):
    fresh.install(*wheels.values())
    (fresh.packages / "distill/__init__.py").touch()
    assert fresh.python("-c", "import distill.core").returncode == 0
    done = fresh.distill("plugins", "--check")
    assert done.returncode == 2 and str(fresh.packages / "distill/__init__.py") in done.stderr


def test_the_module_runs_like_the_console_script(fresh, wheels):
    fresh.install(*wheels.values())
    assert fresh.python("-m", "distill.core", "plugins").stdout == fresh.distill("plugins").stdout
