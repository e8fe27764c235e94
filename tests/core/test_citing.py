"""What to cite: sources of components and runs, as BibTeX."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill.core import citing
from distill.core.cli import main
from distill.core.errors import CheckpointError, UnknownName
from distill.core.registry import default_registry

ROOT = Path(__file__).parents[2]
IDS = re.compile(r"(?:arXiv:\s*|paper=\"|\s\")(\d{4}\.\d{4,5})\b")
PACKAGES = sorted(
    path.parent for path in [*ROOT.glob("core/src/*/*/plugin.py"), *ROOT.glob("plugins/*/src/*/*/plugin.py")]
)


def test_a_method_brings_the_papers_of_its_parts():
    text = citing.cite(["dmd2"], default_registry())
    assert text.startswith("@software{distill,")
    assert "eprint = {2405.14867}" in text and "eprint = {2311.18828}" in text


def test_a_paper_is_printed_once():
    text = citing.cite(["dmd", "dmd2", "score-difference"], default_registry())
    assert text.count("eprint = {2311.18828}") == 1


def test_what_nobody_describes_keeps_its_id():
    assert "eprint = {2599.00001}" in citing.bibtex(["2599.00001"], default_registry())
    assert "doi = {10.1000/1}" in citing.bibtex(["10.1000/1"], default_registry())


def test_a_wrong_name_is_told_the_nearest():
    with pytest.raises(UnknownName, match="dmd2"):
        citing.cite(["dmd22"], default_registry())


def test_a_folder_without_sources_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="finished run"):
        citing.cite([str(tmp_path)], default_registry())


def distill(*arguments):
    """A command that ends well."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    assert not left.value.code


@pytest.fixture
def trained(tmp_path, capsys):
    """A run of two iterations, and what it printed."""
    recipe = tmp_path / "recipe.yaml"
    roles = "roles: {student: {transforms: [{name: lora, rank: 2}]}}"
    teacher = "teacher: {name: mlp, path: karras}"
    recipe.write_text(
        f"{teacher}\nmethod: {{name: dmd2, steps: 2, generator: {{weight: 0}}}}\nbatch_size: 4\n{roles}\n"
    )
    distill("train", recipe, "-o", tmp_path / "run")
    return tmp_path / "run", capsys.readouterr().out


def test_a_run_cites_its_method_its_path_and_its_adapter(trained, capsys):
    folder, said = trained
    assert f"distill cite {folder}" in said
    distill("cite", folder)
    printed = capsys.readouterr().out
    assert printed == (folder / citing.FILE).read_text()
    assert all(f"eprint = {{{paper}}}" in printed for paper in ("2405.14867", "2311.18828", "2206.00364", "2106.09685"))


def test_a_run_does_not_cite_what_it_leaves_out(trained):
    assert "2501.05441" not in (trained[0] / citing.FILE).read_text()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_source_is_described(package):
    named = {paper for file in package.rglob("*.py") for paper in IDS.findall(file.read_text(encoding="utf-8"))}
    file = package / citing.FILE
    described = citing.FIELD.findall(file.read_text(encoding="utf-8")) if file.exists() else []
    assert named <= set(described), f"add to {file.relative_to(ROOT)}: {sorted(named - set(described))}"
    assert len(described) == len(set(described))


def test_the_citation_file_agrees():
    from distill.core import __version__

    own, _ = citing.described(default_registry())
    said = dict(re.findall(r"^(\w+): (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert all(f"{key} = {{{said[key]}}}" in own for key in ("title", "version", "license"))
    assert said["version"] == __version__
