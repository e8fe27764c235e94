"""The conformance kit: what every component of every plugin must do, ours and a stranger's alike.

From the command line, `distill check PLUGIN`. From pytest, one test a check::

    @pytest.mark.parametrize(("name", "check"), component_checks("smell"))
    def test_conforms(name, check):
        check()

Losses, trajectories, transforms and methods are run on a toy: the exact denoiser of two Gaussians teaches a tiny
perceptron that can play any part. A component that needs more than its default options says so in a class attribute
`example`; one to which a check does not apply names it with the reason, `conformance = {"toy": "needs a scene"}`, where
the part before a slash stands for all checks of that group. A check that a component does not pass as yet is named in
`known_failures`, also with the reason, and fails once it passes. Each check says why it exists and how to mend what it
finds. `distill.core.testing.matrix` tries every loss with every denoiser.
"""

from distill.core.testing import denoisers, learning, parts  # noqa: F401  # they add their checks
from distill.core.testing.fit import Unfit, ensure
from distill.core.testing.kit import CHECKS, Case, Failed, Result, check, check_plugin, component_checks

__all__ = ["CHECKS", "Case", "Failed", "Result", "Unfit", "check", "check_plugin", "component_checks", "ensure"]
