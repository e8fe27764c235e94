"""Every component of every plugin of ours, through the kit that strangers use."""

from __future__ import annotations

import pytest

from distill.core.registry import default_registry
from distill.core.testing import component_checks

OURS = [record.name for record in default_registry().plugins() if record.distribution.startswith("distill-")]
CHECKS = [pair for plugin in OURS for pair in component_checks(plugin)]


def test_our_plugins_are_installed_and_sound():
    assert {"core", "methods", "image"} <= set(OURS)
    assert not default_registry().faults()


@pytest.mark.parametrize("check", [pytest.param(run, id=name) for name, run in CHECKS])
def test_conforms(check):
    check()
