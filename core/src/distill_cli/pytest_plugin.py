"""What pytest loads wherever distill-core is installed: assertions of the kit, and of plugins' own, explain themselves.

pytest rewrites the assertions of test files alone. A helper that a distribution ships under `testing` fails with a bare
AssertionError unless its module is registered before anybody imports it; so this one imports nothing of `distill`.
"""

from importlib.metadata import entry_points

import pytest


def kits() -> list[str]:
    """`testing` beside each plugin's light module, whether or not it is there."""
    modules = {point.module.rpartition(".")[0] or point.module for point in entry_points(group="distill")}
    return sorted(f"{module}.testing" for module in modules)


pytest.register_assert_rewrite("distill.core.testing", *kits())
