"""Overrides: failed checks that somebody answers for, named when a run is started and kept in its plan."""

from collections.abc import Sequence

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.spec import Compare, Spec

COMPARISONS = tuple(f"compare_{name}" for name in Compare.model_fields)


class OverrideError(ConfigurationError):
    """An override names no check of the pipeline, or nobody says why."""


def require_overrides(spec: Spec, overrides: Sequence[str], reason: str | None) -> None:
    """Check that every override names a check that can be overridden, and that there is a reason.

    A check is named by its expectation, or by expectation and column, like
    `expect_column_mean_to_be_between:score`. Checks that are always on are not among them: what they stop is wrong.

    Raises:
        OverrideError: one does not, or there is none.
    """
    known = overridable(spec)
    for name in overrides:
        if name not in known:
            raise OverrideError(
                f"{spec.name}: --override {shorten(name)}: no such check can be overridden. {near_miss(name, known)}"
            )
    if overrides and not (reason or "").strip():
        raise OverrideError(f"{spec.name}: an override needs a reason: add --reason WHY. It is kept with your name.")


def overridable(spec: Spec) -> list[str]:
    """Return the names of the checks that can be overridden."""
    budgets = ["max_rejected", *(f"max_rejected:{rule}" for rule in spec.features.reject)]
    found = dict.fromkeys([*budgets, "max_same_score", *COMPARISONS])
    for item in (*spec.checks.features, *spec.checks.predictions):
        found |= dict.fromkeys([item.expect, *([f"{item.expect}:{listed(item.columns)}"] if item.columns else [])])
    return list(found)
