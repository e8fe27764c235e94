"""What looking at plugins may cost: no torch, and little more than the libraries that it needs."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from distill.core.registry import discover

OURS = sorted((s for s in discover() if s.distribution.startswith("distill-")), key=lambda source: source.name)
LOADED = "; import sys; print(sorted({'torch', 'pydantic', 'rich', 'typer', 'numpy'} & set(sys.modules)))"


def loaded(code):
    """The heavy modules that a fresh interpreter holds after `code`."""
    done = subprocess.run([sys.executable, "-c", code + LOADED], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def cpu_seconds(*command):
    """User and system time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_the_core_imports_nothing_heavy():
    assert loaded("import distill.core, distill.core.registry") == "[]"


def test_listing_all_components_imports_nothing_heavy():
    assert loaded("from distill.core.registry import default_registry as r; r().components(); r().faults()") == "[]"


@pytest.mark.parametrize("source", OURS, ids=lambda source: source.name)
def test_every_plugin_module_is_light(source):
    assert loaded(f"import {source.value}") == "[]"


@pytest.mark.parametrize("command", ["plugins", "plugins --json", "plugins --check", "plugins --time"])
def test_the_command_imports_neither_torch_nor_pydantic(command):
    code = f"from distill.core.cli import main\ntry: main({command.split()})\nexcept SystemExit: pass\npass"
    assert loaded(code) == "['typer']"


def test_listing_plugins_costs_little_more_than_its_libraries():
    bare = (sys.executable, "-c", "import pluggy, importlib.metadata, typer")
    ours = (sys.executable, "-c", "from distill_cli import main; main()", "plugins")
    pairs = [(cpu_seconds(*bare), cpu_seconds(*ours)) for _ in range(7)]
    ratio = min(ours for _, ours in pairs) / min(bare for bare, _ in pairs)
    assert ratio <= 2.5, f"`distill plugins` took {ratio:.2f} times the CPU time of importing its libraries"
