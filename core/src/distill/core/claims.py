"""A claim: the measurable statement that shows that a method works, with its baseline in the same run."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Row:
    """One threshold: `value` must stand in `relation` to `bound`; `baseline` says what the bound was measured from."""

    what: str
    value: float
    relation: str
    bound: float
    baseline: str = ""

    @property
    def holds(self) -> bool:
        """Whether the threshold is met; a value that is not a number never does."""
        return COMPARE[self.relation](self.value, self.bound)


@dataclass(frozen=True)
class Claim:
    """The outcome of one measurement of a method's claim.

    Attributes:
        method: the method's name.
        statement: what the paper says, in one sentence.
        rows: thresholds with what was measured.
        broken: how the method was broken on purpose, and what the claim measured then.
        settings: seed, budget, data, networks: what a reader needs to judge the numbers.
        open: what of the paper's claim was measured and not found, or measured in another way.
    """

    method: str
    statement: str
    rows: Sequence[Row]
    broken: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    open: str = ""

    @property
    def holds(self) -> bool:
        """Whether every threshold is met."""
        return all(row.holds for row in self.rows)

    def write(self, path: Path) -> None:
        """The claim as JSON."""
        rows = [asdict(row) | {"holds": row.holds} for row in self.rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self) | {"rows": rows, "holds": self.holds}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Claim:
        """A claim that was written."""
        found = json.loads(path.read_text())
        kept = {each.name: found[each.name] for each in fields(cls)}
        rows = [Row(**{each.name: row[each.name] for each in fields(Row)}) for row in found["rows"]]
        return cls(**kept | {"rows": rows})
