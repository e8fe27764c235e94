"""From a method and a teacher to roles that an engine can run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from distill.core.contracts import Builder, HeadBuilder, Method, RoleSpec
from distill.core.errors import RecipeError
from distill.core.guidance import cfg
from distill.core.plan import Plan
from distill.core.roles import Role, Roles
from distill.core.sampling import Sampler


def assemble(method: Method, fixed: Mapping[str, Role], extra: Mapping[str, RoleSpec] | None = None) -> Roles:
    """The roles of a run: those that are given (the teacher, a subject), then those that the method asks for.

    A role is made once the roles that it copies, shares or looks at exist; `extra` overrides or adds to the
    method's.
    """
    roles = Roles(fixed)
    specs = {**method.roles(), **(extra or {})}
    waiting = {name: spec for name, spec in specs.items() if name not in fixed}
    while waiting:
        ready = [name for name, spec in waiting.items() if not sources(spec) & set(waiting)]
        if not ready:
            raise RecipeError(f"the roles {', '.join(sorted(waiting))} wait for each other")
        for name in ready:
            _make(roles, name, waiting.pop(name), specs)
    return roles


def sources(spec: RoleSpec) -> set[str]:
    """Roles that must exist before this one is made."""
    looks_at = {spec.build.features} if isinstance(spec.build, HeadBuilder) else set()
    return {spec.copy_of, spec.shares, *looks_at} - {""}


def _make(roles: Roles, name: str, spec: RoleSpec, specs: Mapping[str, RoleSpec]) -> None:
    transforms, like = spec.transforms, roles[spec.copy_of] if spec.copy_of else None
    if isinstance(spec.build, HeadBuilder):
        module = spec.build.build(roles)
    elif isinstance(spec.build, Builder):
        module = spec.build.build()
    elif spec.shares:
        module = roles[spec.shares].module
    elif like is not None and like.own is not None:  # another adapter of the same module
        module, transforms = like.module, (*specs[like.name].transforms, *transforms)
    elif like is not None:
        module = copy.deepcopy(like.module).requires_grad_(True)
    else:
        raise RecipeError(f"role '{name}' says neither what it copies, nor what it shares, nor its build")
    roles.add(Role(name, module, cfg(spec.guidance), frozen=spec.frozen))
    for transform in transforms:
        transform.apply(roles, name)
    if like is not None and like.own is not None:
        roles[name].load(like.tensors())


class Frozen(Method):
    """No training: the teacher is the result."""

    sampler: Sampler | None = None
    """How it is sampled: guidance, interval, steps; what is left out stays as the teacher has it."""

    def roles(self) -> dict[str, RoleSpec]:
        return {}

    def plan(self, teacher: Any) -> Plan:
        return Plan(phases=(), sampler=teacher.but_for(self.sampler), result="teacher")
