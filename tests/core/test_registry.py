"""Discovery and registry: every way in which a plugin can be wrong, and that nothing else suffers from it."""

from __future__ import annotations

import types
from dataclasses import replace

import pytest

from distill.core.errors import (
    DistillError,
    IncompatibleSpec,
    PluginConflict,
    PluginLoadError,
    UnknownName,
    nearest,
)
from distill.core.hookspecs import KINDS, Component, hookimpl
from distill.core.registry import Registry, Source, default_registry, discover, plural

HEAD = "from distill.core.hookspecs import hookimpl\nDISTILL_SPEC = 1\n@hookimpl\n"


def states(registry):
    return {record.name: record.state for record in registry.plugins()}


def test_a_good_plugin_is_listed_with_its_origin(site):
    module = site.plugin("acme-noise", "hinge", "mse")
    (record,) = site.registry().plugins()
    assert (record.state, record.distribution, record.version, record.spec) == ("ok", "acme-noise", "1.0", 1)
    assert record.entry_point == module and record.location.endswith(f"{module}.py")
    assert [each.name for each in record.components["loss"]] == ["hinge", "mse"]


def test_a_target_is_imported_when_it_is_loaded(site):
    site.plugin("acme", "hinge")
    registry = site.registry()
    assert registry.find("loss", "hinge").qualified == "acme:hinge"
    assert registry.load("loss", "acme:hinge") is hookimpl


def test_a_broken_plugin_is_listed_and_the_others_work(site):
    site.install("bad", "import no_such_module_xyz")
    site.plugin("good", "hinge")
    registry = site.registry()
    assert states(registry) == {"bad": "broken", "good": "ok"}
    assert "no_such_module_xyz" in registry.plugins()[0].error
    assert registry.load("loss", "hinge") is hookimpl


def test_using_a_broken_plugin_raises_its_cause_and_the_remedy(site):
    site.install("bad", "import no_such_module_xyz", version="0.3")
    with pytest.raises(PluginLoadError, match="pip install -U bad") as caught:
        site.registry().find("loss", "bad:hinge")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert all(part in str(caught.value) for part in ("bad 0.3", "entry point bad", "no_such_module_xyz"))


def test_a_missing_name_mentions_the_plugin_that_may_have_had_it(site):
    site.install("bad", "raise RuntimeError('no luck')")
    with pytest.raises(UnknownName, match="bad .*is broken: RuntimeError: no luck"):
        site.registry().find("loss", "hinge")


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "1 / 0", "def f(:"])
def test_whatever_a_module_raises_is_contained(site, source):
    site.install("bad", source)
    assert states(site.registry()) == {"bad": "broken"}


def test_a_missing_module_is_broken(site):
    site.registry()
    registry = Registry([Source("ghost", "no_such_module_xyz", "ghosts", "1")])
    assert states(registry) == {"ghost": "broken"}


def test_a_target_that_cannot_be_imported_says_where_it_came_from(site):
    site.plugin("acme", "hinge", target="no_such_module_xyz:Loss")
    registry = site.registry()
    assert states(registry) == {"acme": "ok"}
    with pytest.raises(PluginLoadError, match=r"acme 1\.0, entry point acme.*no_such_module_xyz:Loss") as caught:
        registry.load("loss", "hinge")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_cannot_be_imported_does_not_hide_the_others(site):
    site.plugin("acme", "hinge", target="no_such_module_xyz:Loss")
    site.plugin("good", "huber")
    assert [(entry.name, target) for entry, target in site.registry().loaded("loss")] == [("huber", hookimpl)]


@pytest.mark.parametrize("target", ["nomodule", "a:b:c", "a b:c", ":c", "a:", "1a:b"])
def test_a_malformed_target_breaks_its_plugin(site, target):
    site.plugin("acme", "hinge", target=target)
    (record,) = site.registry().plugins()
    assert record.state == "broken" and "module:attribute" in record.error


@pytest.mark.parametrize("names", [("a", "a"), ("",), ("x:y",)])
def test_names_are_unique_and_plain(site, names):
    site.plugin("acme", *names)
    assert states(site.registry()) == {"acme": "broken"}


def test_an_answer_that_is_no_component_breaks_its_plugin(site):
    site.install("acme", HEAD + "def distill_losses(): return ['hinge']")
    (record,) = site.registry().plugins()
    assert record.state == "broken" and "Component" in record.error


def test_a_misspelt_hook_is_an_error_of_that_plugin(site):
    site.plugin("typo", "hinge", hook="distill_loses")
    site.plugin("good", "hinge")
    registry = site.registry()
    assert states(registry) == {"good": "ok", "typo": "broken"}
    assert "unknown hook 'distill_loses'" in registry.plugins()[1].error


def test_a_hook_that_asks_for_what_is_not_offered_is_an_error(site):
    site.install("acme", HEAD + "def distill_losses(app): pass")
    assert "app" in site.registry().plugins()[0].error


def test_two_plugins_of_one_name_are_a_conflict_that_names_both(site):
    site.plugin("acme-one", "hinge", plugin="acme")
    site.plugin("acme-two", "hinge", plugin="acme")
    registry = site.registry()
    assert [record.state for record in registry.plugins()] == ["conflict", "conflict"]
    with pytest.raises(PluginConflict, match="acme-one 1.0 and acme-two 1.0"):
        registry.find("loss", "acme:hinge")


def test_blocking_one_of_two_resolves_the_conflict(site):
    site.plugin("acme-one", "hinge", plugin="acme")
    site.plugin("acme-two", "hinge", plugin="acme")
    registry = site.registry(block=["acme-two"])
    assert registry.find("loss", "acme:hinge").plugin.distribution == "acme-one"


def test_two_components_of_one_name_need_the_plugin_to_be_named(site):
    site.plugin("one", "hinge")
    site.plugin("two", "hinge")
    registry = site.registry()
    with pytest.raises(PluginConflict, match=r"one \(one 1.0\) and two \(two 1.0\).*one:hinge or two:hinge"):
        registry.load("loss", "hinge")
    assert registry.find("loss", "two:hinge").plugin.name == "two"
    assert [[entry.qualified for entry in group] for group in registry.conflicts()] == [["one:hinge", "two:hinge"]]


def test_one_name_in_two_kinds_is_no_conflict(site):
    site.plugin("one", "dmd2")
    site.plugin("two", "dmd2", hook="distill_methods")
    assert site.registry().conflicts() == []


def test_the_same_distribution_seen_twice_is_one(site, tmp_path, monkeypatch):
    site.plugin("acme", "hinge")
    (tmp_path / "again").symlink_to(site.path)
    monkeypatch.syspath_prepend(tmp_path / "again")
    discover.cache_clear()
    assert [source.name for source in discover()].count("acme") == 1


def test_the_same_entry_point_given_twice_is_one(site):
    site.plugin("acme-dist", "hinge", plugin="acme")
    (source,) = site.sources()
    registry = Registry([source, source, replace(source, distribution="Acme_Dist")])
    assert states(registry) == {"acme": "ok"}


def test_the_core_cannot_be_left_out():
    core = Source("core", "distill.core.plugin", "distill-core")
    assert states(Registry([core, Source("acme", "acme", "acme")], allow=["acme"]))["core"] == "ok"
    with pytest.raises(DistillError, match="cannot be blocked"):
        Registry([core], block=["distill-core"])


@pytest.mark.parametrize(("declared", "state"), [(7, "ok"), (6, "ok"), (5, "incompatible"), (8, "incompatible")])
def test_this_version_of_the_spec_and_the_one_before_are_accepted(site, declared, state):
    site.plugin("acme", "hinge", spec=declared)
    assert states(site.registry(spec=7)) == {"acme": state}


@pytest.mark.parametrize(("declared", "remedy"), [(5, "acme"), (8, "distill-core")])
def test_another_version_is_refused_in_one_sentence(site, declared, remedy):
    site.plugin("acme", "hinge", spec=declared)
    with pytest.raises(IncompatibleSpec, match=f"version {declared}, but .* speaks 7 and 6: pip install -U {remedy}$"):
        site.registry(spec=7).find("loss", "acme:hinge")


def test_a_module_without_a_version_is_incompatible(site):
    site.install("acme", "")
    assert states(site.registry()) == {"acme": "incompatible"}


def test_a_plugin_that_provides_nothing_is_fine(site):
    site.install("acme", "DISTILL_SPEC = 1")
    assert states(site.registry()) == {"acme": "ok"}


def test_the_allow_list_loads_only_what_it_names(site):
    site.plugin("one", "a")
    site.plugin("two", "b")
    assert states(site.registry(allow=[" two ", ""])) == {"one": "blocked", "two": "ok"}


@pytest.mark.parametrize("name", ["acme", "acme-dist"])
def test_a_block_goes_by_plugin_or_distribution_and_before_import(site, name):
    site.install("acme-dist", "raise RuntimeError('was imported')", plugin="acme")
    registry = site.registry(block=[name])
    assert states(registry) == {"acme": "blocked"} and registry.faults() == []
    with pytest.raises(PluginLoadError, match="DISTILL_BLOCK"):
        registry.find("loss", "acme:hinge")


@pytest.mark.parametrize("switch", ["allow", "block"])
def test_an_unknown_name_in_either_list_is_an_error(site, switch):
    site.plugin("acme", "hinge")
    with pytest.raises(UnknownName, match="'akme'. Did you mean 'acme'"):
        site.registry(**{switch: ["akme"]})


def test_strict_turns_a_bad_record_into_an_exception(site):
    site.install("bad", "1 / 0")
    with pytest.raises(PluginLoadError, match="ZeroDivisionError"):
        site.registry(strict=True).plugins()


def test_strict_minds_conflicts_and_not_blocks(site):
    site.plugin("one", "hinge")
    site.plugin("two", "hinge")
    assert site.registry(strict=True, block=["two"]).plugins()
    with pytest.raises(PluginConflict):
        site.registry(strict=True).plugins()


def test_the_default_registry_obeys_the_environment(site, monkeypatch):
    site.plugin("acme", "hinge")
    monkeypatch.setenv("DISTILL_BLOCK", " acme ,")
    default_registry.cache_clear()
    discover.cache_clear()
    assert states(default_registry())["acme"] == "blocked"
    assert default_registry() is default_registry()


def test_an_unknown_component_gets_the_nearest_and_the_known_names(site):
    site.plugin("acme", "hinge", "mse")
    with pytest.raises(UnknownName, match="no loss 'hing'. Did you mean 'hinge'.*Known: hinge, mse") as caught:
        site.registry().find("loss", "hing")
    assert caught.value.suggestion == "hinge" and caught.value.exit_code == 2


def test_an_unknown_kind_lists_the_kinds(site):
    with pytest.raises(UnknownName, match="Did you mean 'loss'"):
        site.registry().components("losss")


def test_an_absent_modality_says_what_to_install(site):
    with pytest.raises(UnknownName, match="pip install distill-audio"):
        site.registry().components("denoiser", modality="audio")


def test_a_modality_filter_keeps_what_suits_any():
    module = types.ModuleType("acme.plugin")
    modalities = {"a": "", "b": "x", "c": "y"}
    parts = [Component(name=n, summary="", target="os:path", modality=m) for n, m in modalities.items()]
    module.DISTILL_SPEC, module.distill_losses = 1, hookimpl(lambda: parts)
    module.distill_losses.__name__ = "distill_losses"
    registry = Registry([module])
    assert [entry.name for entry in registry.components("loss", modality="x")] == ["a", "b"]
    assert registry.plugins()[0].name == "acme"


def test_requirements_name_what_is_usable(site):
    site.plugin("good", "hinge", plugin="g")
    site.install("bad", "1 / 0")
    assert site.registry().requirements() == {"good": "1.0"}


def test_every_kind_has_a_hook_and_a_plural():
    assert len(KINDS) == len(set(KINDS.values())) == 10
    assert [plural(kind) for kind in ("loss", "lens", "modality", "trajectory")] == [
        "losses",
        "lenses",
        "modalities",
        "trajectories",
    ]


def test_every_error_is_a_distill_error_with_an_exit_code():
    import distill.core.errors as errors

    classes = [getattr(errors, name) for name in errors.__all__ if name != "nearest"]
    assert all(issubclass(each, DistillError) for each in classes)
    assert {each.__name__ for each in classes if each.exit_code != 2} == {"ClaimFailed"}
    assert all(each.__name__ in errors.__doc__ for each in classes)


def test_nearest_is_silent_about_far_names():
    assert nearest("DMD2", ["dmd2"]) == "dmd2"
    assert nearest("zebra", ["dmd2", "sid"]) is None
