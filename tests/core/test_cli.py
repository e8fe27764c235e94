"""The commands that look at plugins, and how errors leave the command line."""

from __future__ import annotations

import json

import pytest

from distill.core.cli import main

METHOD = '''
from distill.core.hookspecs import Component, hookimpl
from distill.core.options import Options

DISTILL_SPEC = 1


class Method(Options):
    """A tiny method."""

    steps: int
    """How many steps."""

    rate: float | None = 0.1

    roles = {"student": 1}


class Claim:
    """It is tiny."""


@hookimpl
def distill_methods():
    paper = {"paper": "arXiv:2405.14867", "claim": "tiny:Claim"}
    return [Component(name="tiny", summary="a tiny method", target="tiny:Method", **paper)]
'''.replace('    roles = {"student": 1}\n', "")


def test_plugins_is_a_table_that_ends_with_what_is_wrong(site, distill):
    site.plugin("good", "hinge", "mse")
    site.install("bad", "1 / 0")
    code, out, err = distill("plugins")
    assert code == 0 and "2 losses" in out and "broken" in out
    assert "ZeroDivisionError" in err and "DISTILL_BLOCK=bad" in err


def test_plugins_as_json(site, distill):
    site.plugin("good", "hinge")
    (record,) = json.loads(distill("plugins", "--json").out)
    assert record["state"] == "ok" and record["components"] == {"loss": ["hinge"]}
    assert {"name", "distribution", "version", "entry_point", "error", "spec", "location"} < set(record)


def test_plugins_as_requirements_and_with_times(site, distill):
    site.plugin("good", "hinge")
    assert distill("plugins", "--requirements").out == "good==1.0\n"
    assert "import ms" in distill("plugins", "--time").out


def test_check_is_content_with_good_plugins(site, distill):
    site.plugin("good", "hinge")
    assert distill("plugins", "--check").code == 0


@pytest.mark.parametrize("spec", [1, 99])
def test_check_fails_on_a_bad_plugin(site, distill, spec):
    site.plugin("acme", "hinge", spec=spec, hook="distill_loses")
    result = distill("plugins", "--check")
    assert result.code == 2 and "problem: plugin 'acme'" in result.err


def test_check_finds_a_distribution_that_is_installed_twice(site, distill, tmp_path, monkeypatch):
    site.plugin("acme", "hinge")
    (tmp_path / "second").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "second")
    type(site)(tmp_path / "second").install("acme", "DISTILL_SPEC = 1", version="0.9")
    result = distill("plugins", "--check")
    assert result.code == 2 and "'acme' is installed 2 times" in result.err and "0.9 in" in result.err


@pytest.mark.parametrize("file", ["distill.py", "distill/__init__.py"])
def test_check_names_a_stray_file_and_its_owner(site, distill, file):
    site.install("distill-framework", "DISTILL_SPEC = 1")
    (site.path / file).parent.mkdir(exist_ok=True)
    (site.path / file).touch()
    result = distill("plugins", "--check")
    assert result.code == 2 and str(site.path / file) in result.err and "no installed distribution lists" in result.err
    (site.path / "distill_framework-1.0.dist-info" / "RECORD").write_text(f"{file},,\n")
    assert "pip uninstall distill-framework" in distill("plugins", "--check").err


def editable(site, folder, dist="acme"):
    """Makes a distribution look like one that was installed with `pip install -e FOLDER`."""
    site.plugin(dist, "hinge")
    origin = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    (site.path / f"{dist}-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))


@pytest.mark.parametrize(
    ("version", "points", "said"),
    [
        ("1.0", "acme = 'acme'", ""),
        ("2.0", "acme = 'acme'", "version = 1.0, where"),
        ("1.0", "acme = 'acme'\nextra = 'acme.more'", "extra = nothing, where"),
        ("1.0", "acme = 'acme.plugin'", "acme = acme, where"),
    ],
)
def test_check_finds_metadata_that_are_older_than_the_sources(site, distill, tmp_path, version, points, said):
    editable(site, tmp_path / "a b")
    (tmp_path / "a b").mkdir()
    text = f"[project]\nname = 'acme'\nversion = '{version}'\n[project.entry-points.distill]\n{points}\n"
    (tmp_path / "a b" / "pyproject.toml").write_text(text)
    result = distill("plugins", "--check")
    assert result.code == (2 if said else 0) and said in result.err
    assert not said or f"Try: pip install -e {tmp_path / 'a b'}" in result.err


def test_check_finds_sources_that_are_gone(site, distill, tmp_path):
    editable(site, tmp_path / "gone")
    assert "Try: pip uninstall acme" in distill("plugins", "--check").err


def test_check_finds_an_installation_that_lacks_files(site, distill):
    site.plugin("acme", "hinge")
    (site.path / "acme-1.0.dist-info" / "RECORD").write_text("acme.py,,\nacme_parts.py,,\nacme_more.py,,\n")
    result = distill("plugins", "--check")
    assert result.code == 2 and "acme lacks acme_parts.py and 1 more. Try: pip install --force-reinstall" in result.err


def test_check_finds_two_distributions_of_one_module(site, distill):
    site.plugin("acme", "hinge", plugin="one")
    site.install("copy", "", plugin="two", module="acme_copy")
    (site.path / "copy-1.0.dist-info" / "entry_points.txt").write_text("[distill]\ntwo = acme\n")
    result = distill("plugins", "--check")
    assert "2 plugins are the module acme: from acme 1.0 and copy 1.0. Try: pip uninstall one" in result.err


@pytest.mark.parametrize(
    ("spec", "remedy"), [("None", "write DISTILL_SPEC = 1 in acme"), (-1, "install -U acme"), (2, "-U distill-core")]
)
def test_check_finds_plugins_for_other_hookspecs(site, distill, spec, remedy):
    site.plugin("acme", "hinge", spec=spec)
    assert remedy in distill("plugins", "--check").err


def test_list_takes_plural_and_singular(site, distill):
    site.plugin("acme", "hinge")
    assert "hinge" in distill("list", "losses").out
    assert distill("list", "loss").out == distill("list", "losses").out
    assert distill("list", "lenses").out == "None.\n"


def test_list_qualifies_what_is_in_conflict(site, distill):
    site.plugin("one", "hinge", "mse")
    site.plugin("two", "hinge")
    out = distill("list").out
    assert "one:hinge" in out and "two:hinge" in out and "\nmse" in out


def test_list_as_json(site, distill):
    site.plugin("acme", "hinge")
    (fact,) = json.loads(distill("list", "--json").out)
    assert fact["name"] == "hinge" and fact["kind"] == "loss" and fact["plugin"] == "acme"


def test_list_of_an_unknown_kind_or_modality(site, distill):
    assert "Did you mean 'losses'" in distill("list", "loses").err
    result = distill("list", "losses", "--modality", "video")
    assert result.code == 2 and "pip install distill-video" in result.err


def test_show_prints_options_paper_and_claim(site, distill):
    site.install("tiny", METHOD)
    out = distill("show", "tiny").out
    for part in (
        "A tiny method.",
        "steps",
        "required",
        "How many steps.",
        "float | None",
        "0.1",
        "2405.14867",
    ):
        assert part in out
    assert "It is tiny." in out


def test_show_as_json_has_the_schema(site, distill):
    site.install("tiny", METHOD)
    found = json.loads(distill("show", "tiny:tiny", "--json").out)
    assert found["claim_doc"] == "It is tiny." and found["schema"]["required"] == ["steps"]
    assert [option["default"] for option in found["options"]] == [None, 0.1]


def test_show_prefers_the_method_and_mentions_the_rest(site, distill):
    site.install("tiny", METHOD)
    site.plugin("acme", "tiny")
    assert "also a loss of this name" in distill("show", "tiny").out
    assert distill("show", "tiny", "--kind", "loss").out.startswith("name          tiny\nkind          loss")


def test_show_of_an_unknown_name(site, distill):
    site.plugin("acme", "hinge")
    result = distill("show", "hinje")
    assert (result.code, result.out) == (2, "") and "Did you mean 'hinge'" in result.err


def test_a_plugin_can_be_left_out_wherever_the_option_stands(site, distill):
    site.plugin("acme", "hinge")
    for arguments in (["--no-plugin", "acme", "list"], ["list", "--no-plugin=acme"]):
        assert distill(*arguments).out == "None.\n"
    assert distill("list", "--no-plugin", "akme").code == 2
    assert "needs a name" in distill("list", "--no-plugin").err


def test_an_error_is_one_message_without_a_traceback(site, distill):
    result = distill("list", "loses")
    assert result.code == 2 and result.err.startswith("error: ") and result.err.count("\n") == 1


def test_anything_else_is_an_internal_error(site, distill, monkeypatch):
    monkeypatch.setattr("distill.core.listing.plugin_table", lambda *a, **k: 1 / 0)
    result = distill("plugins")
    assert result.code == 1
    assert result.err == "internal error: ZeroDivisionError: division by zero. Use --debug for the traceback.\n"


def test_debug_lets_the_exception_through(site, monkeypatch):
    monkeypatch.setattr("distill.core.listing.plugin_table", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["plugins", "--debug"])


def test_a_usage_error_exits_with_2(site, distill):
    result = distill("frobnicate")
    assert result.code == 2 and "No such command 'frobnicate'" in result.err


def test_help_names_every_command(site, distill):
    out = distill("--help").out
    for command in "plugins list show check train sample eval compare reproduce export demo schema".split():
        assert f"\n  {command} " in out
    assert "--no-plugin" in out


COMMAND = '''
import sys
from distill.core.errors import DataError
from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


@hookimpl
def distill_commands():
    return [Component(name=name, summary="Says a word often", target=target)
            for name, target in {"shout": "shout:shout", "train": "shout:shout", "lost": "nowhere:lost"}.items()]


def shout(word: str, times: int = 2):
    """Say a word."""
    if word == "bad":
        raise DataError("not that word")
    print(" ".join([word] * times))
'''


def test_a_plugins_command_is_listed_and_called(site, distill):
    site.install("shout", COMMAND)
    assert "Says a word often" in distill("--help").out and "Say a word." in distill("shout", "--help").out
    assert distill("shout", "hey", "--times", "3").out == "hey hey hey\n"
    assert distill("shout:shout", "hey").out == "hey hey\n"
    assert distill("shout:train", "hey").out == "hey hey\n" and "RECIPE" in distill("train", "--help").out


def test_a_plugins_command_fails_as_any_other(site, distill):
    site.install("shout", COMMAND)
    assert distill("shout", "bad")[::2] == (2, "error: not that word\n")
    assert distill("shout").code == 2 and "could not be imported from nowhere:lost" in distill("lost").err
    assert distill("shuot").code == 2 and "'shout'" in distill("shuot").err


def test_a_command_of_two_plugins_or_of_a_broken_one(site, distill):
    site.install("shout", COMMAND)
    site.install("acme", COMMAND)
    assert "Write acme:shout or shout:shout" in distill("shout", "hey").err
    site.install("bad", "1 / 0")
    assert distill("upscale").code == 2 and "ZeroDivisionError" in distill("upscale").err
    assert "pip install distill-pipeline" in distill("pipeline").err
