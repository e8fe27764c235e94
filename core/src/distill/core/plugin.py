"""What distill-core itself provides, by the same means as everybody else."""

from __future__ import annotations

DISTILL_SPEC = 1
