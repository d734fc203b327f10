"""Choosing a run's challengers: the versions of the model that score the same rows beside its champion.

A challenger that cannot take part is left out with a sentence why. None keeps the champion from its night.
"""

from dataclasses import dataclass

from nightscore.errors import ConfigurationError, listed, shorten
from nightscore.registry.store import Registry, Version
from nightscore.spec import ModelReference


@dataclass(frozen=True)
class Challengers:
    """Who takes part, and who does not.

    Attributes:
        versions: reference as asked, like `credit_default@challenger` → the version it means now.
        left_out: reference as asked → a sentence why it does not take part.
    """

    versions: dict[str, Version]
    left_out: dict[str, str]


def choose_challengers(model: ModelReference, champion: Version, registry: Registry) -> Challengers:
    """Return which challengers of a spec's model can be compared with the version that the run publishes."""
    versions: dict[str, Version] = {}
    left_out: dict[str, str] = {}
    for reference in model.challenger_references:
        asked = str(reference)
        try:
            version = registry.resolve(reference)
            version.require_libraries()
            registry.require_signed(version)
        except ConfigurationError as error:
            left_out[asked] = shorten(error, 400)
            continue
        reason = _same(version, champion, versions) or _different(version, champion)
        if reason is None:
            versions[asked] = version
        else:
            left_out[asked] = reason
    return Challengers(versions, left_out)


def _same(version: Version, champion: Version, others: dict[str, Version]) -> str | None:
    if version.label == champion.label:
        return f"It is {champion.label}, which the run publishes: there is nothing to compare."
    for asked, other in others.items():
        if version.label == other.label:
            return f"It is {other.label}, as {asked} is."
    return None


def _different(version: Version, champion: Version) -> str | None:
    found, wanted = version.manifest, champion.manifest
    if found.task != wanted.task:
        return f"{version.label} is a {found.task} model, and {champion.label}, which the run publishes, {wanted.task}."
    if found.classes != wanted.classes:
        return (
            f"{version.label} predicts the classes {listed(found.classes)}, and {champion.label}, which the run "
            f"publishes, {listed(wanted.classes)}."
        )
    return None
