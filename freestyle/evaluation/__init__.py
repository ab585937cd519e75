"""Ranking, metrics, protocols and reports: everything after embeddings exist.

Submodules load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "Ranks": "ranks",
    "first_relevant_ranks": "ranks",
    "top_k": "ranks",
    "top_relevance": "ranks",
    "Outcome": "evaluate",
    "evaluate_queries": "evaluate",
    "FUSIONS": "fusion",
    "DEFAULT_FUSION": "fusion",
    "Fusion": "fusion",
    "fuse": "fusion",
    "get_fusion": "fusion",
    "Protocol": "protocols",
    "parse_protocol": "protocols",
    "average_precision_at": "metrics",
    "bootstrap_interval": "metrics",
    "hits_at": "metrics",
    "mean_average_precision_at": "metrics",
    "mean_reciprocal_rank": "metrics",
    "median_rank": "metrics",
    "paired_bootstrap_difference": "metrics",
    "recall_at": "metrics",
    "Report": "report",
    "Row": "report",
    "read_report": "report",
    "write_markdown": "report",
    "write_report": "report",
    "detail_table": "tables",
    "wide_table": "tables",
    "Case": "figures",
    "case_grid": "figures",
    "training_curve": "figures",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
