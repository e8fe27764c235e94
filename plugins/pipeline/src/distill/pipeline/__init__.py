"""distill.pipeline: several modalities in one graph, from a file or from Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.pipeline.graph import Pipeline as Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'distill.pipeline' has no attribute {name!r}")
    from distill.pipeline.graph import Pipeline

    return Pipeline
