"""distill.core: hookspecs, values and one engine. Names are imported when first used, so this costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distill.core import tree as tree
    from distill.core.cache import Cache as Cache
    from distill.core.claims import Claim as Claim
    from distill.core.claims import Row as Row
    from distill.core.contracts import (
        Action as Action,
    )
    from distill.core.contracts import (
        Batch as Batch,
    )
    from distill.core.contracts import (
        Builder as Builder,
    )
    from distill.core.contracts import (
        Context as Context,
    )
    from distill.core.contracts import (
        DataSource as DataSource,
    )
    from distill.core.contracts import (
        Event as Event,
    )
    from distill.core.contracts import (
        Fit as Fit,
    )
    from distill.core.contracts import (
        HeadBuilder as HeadBuilder,
    )
    from distill.core.contracts import (
        Lens as Lens,
    )
    from distill.core.contracts import (
        Loss as Loss,
    )
    from distill.core.contracts import (
        Method as Method,
    )
    from distill.core.contracts import (
        Metric as Metric,
    )
    from distill.core.contracts import (
        Modality as Modality,
    )
    from distill.core.contracts import (
        RoleSpec as RoleSpec,
    )
    from distill.core.contracts import (
        Subject as Subject,
    )
    from distill.core.contracts import (
        Terms as Terms,
    )
    from distill.core.contracts import (
        Trajectory as Trajectory,
    )
    from distill.core.contracts import (
        Transform as Transform,
    )
    from distill.core.data import Samples as Samples
    from distill.core.data import batches as batches
    from distill.core.denoiser import Denoiser as Denoiser
    from distill.core.engine import Engine as Engine
    from distill.core.errors import DistillError as DistillError
    from distill.core.guidance import Guidance as Guidance
    from distill.core.guidance import cfg as cfg
    from distill.core.mixture import Mixture as Mixture
    from distill.core.options import Options as Options
    from distill.core.paths import GaussianPath as GaussianPath
    from distill.core.plan import EMA as EMA
    from distill.core.plan import Copy as Copy
    from distill.core.plan import Optimiser as Optimiser
    from distill.core.plan import Phase as Phase
    from distill.core.plan import Plan as Plan
    from distill.core.plan import Update as Update
    from distill.core.prediction import Prediction as Prediction
    from distill.core.rng import Rng as Rng
    from distill.core.roles import Role as Role
    from distill.core.roles import Roles as Roles
    from distill.core.rolling import RollingCache as RollingCache
    from distill.core.sampling import Sampler as Sampler
    from distill.core.sampling import rollout as rollout
    from distill.core.setup import assemble as assemble
    from distill.core.tree import Masked as Masked
    from distill.core.tree import Ragged as Ragged
    from distill.core.tree import State as State

_HOME = {
    "cache": ("Cache",),
    "claims": ("Claim", "Row"),
    "contracts": (
        "Action", "Batch", "Builder", "Context", "DataSource", "Event", "Fit", "HeadBuilder", "Lens", "Loss", "Method",
        "Metric", "Modality", "RoleSpec", "Subject", "Terms", "Trajectory", "Transform",
    ),
    "data": ("Samples", "batches"),
    "denoiser": ("Denoiser",),
    "engine": ("Engine",),
    "errors": ("DistillError",),
    "guidance": ("Guidance", "cfg"),
    "mixture": ("Mixture",),
    "options": ("Options",),
    "paths": ("GaussianPath",),
    "plan": ("EMA", "Copy", "Optimiser", "Phase", "Plan", "Update"),
    "prediction": ("Prediction",),
    "rng": ("Rng",),
    "roles": ("Role", "Roles"),
    "rolling": ("RollingCache",),
    "sampling": ("Sampler", "rollout"),
    "setup": ("assemble",),
    "tree": ("Masked", "Ragged", "State"),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted([*_MODULE, "tree"])  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "tree":
        return import_module("distill.core.tree")
    if name not in _MODULE:
        raise AttributeError(f"module 'distill.core' has no attribute {name!r}")
    return getattr(import_module(f"distill.core.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
