"""Two versions of a model beside each other: what they are, what they read, and how they scored the same nights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nightscore.errors import listed
from nightscore.gates.comparison import population_stability
from nightscore.monitoring.evidence import gather
from nightscore.monitoring.text import figure, interval
from nightscore.objects import Json
from nightscore.registry.card import Part
from nightscore.registry.store import Registry, Version
from nightscore.run import Services
from nightscore.spec import ModelReference, Spec
from nightscore.specs import iter_specs

MEASURES = {"auc": "AUC", "gini": "Gini", "ks": "KS", "brier": "Brier score"}


@dataclass(frozen=True)
class Comparison:
    """What two versions have in common and what not: as tables, and as JSON."""

    parts: tuple[Part, ...]
    content: Json


def compare(services: Services, folder: Path, first: ModelReference, second: ModelReference) -> Comparison:
    """Compare two versions of one model.

    Args:
        services: the deployment.
        folder: where the specs are; pipelines that use the model tell how both scored the same nights.
        first: one version.
        second: the other.

    Raises:
        ModelNotFoundError: there is no such version.
        DigestError: one is not what was registered.
    """
    registry = services.registry
    one, other = registry.resolve(first), registry.resolve(second)
    shift = _shift(registry, one, other)
    evidence = list(_evidence(services, folder, one, other))
    parts = (
        Part("versions", ("", one.label, other.label), tuple(_facts(one, other, shift))),
        Part("inputs", ("name", one.label, other.label), tuple(_inputs(one, other))),
        Part("metrics", ("", one.label, other.label, "difference"), tuple(_metrics(one, other))),
        *(_nights(item) for item in evidence),
    )
    content = {
        "first": {**one.manifest.model_dump(mode="json"), "digest": one.digest},
        "second": {**other.manifest.model_dump(mode="json"), "digest": other.digest},
        "sample_psi": shift,
        "evidence": evidence,
    }
    return Comparison(tuple(part for part in parts if part.rows), content)


def _facts(one: Version, other: Version, shift: float | None) -> Iterator[tuple[str, ...]]:
    for name in ("estimator", "format", "task", "classes", "training_data", "git_revision", "owner", "created_at"):
        values = [getattr(version.manifest, name) for version in (one, other)]
        shown = [listed(value) if isinstance(value, tuple) else str(value) for value in values]
        if any(shown):
            yield name.replace("_", " "), *shown
    for name in sorted({*one.manifest.libraries, *other.manifest.libraries}):
        found = [version.manifest.libraries.get(name, "") for version in (one, other)]
        if found[0] != found[1]:
            yield name, *found
    if shift is not None:
        yield "PSI of the samples' scores", "", f"{shift:.4g}"


def _inputs(one: Version, other: Version) -> Iterator[tuple[str, ...]]:
    """Yield the inputs that only one version reads, or both read differently."""
    sides = [{item.name: item for item in version.manifest.inputs} for version in (one, other)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        found = [
            "" if item is None else f"{item.type}{', may be NULL' if item.nullable else ''}"
            for item in (side.get(name) for side in sides)
        ]
        if found[0] != found[1]:
            yield name, *found


def _metrics(one: Version, other: Version) -> Iterator[tuple[str, ...]]:
    sides = [version.manifest.metrics for version in (one, other)]
    for name in sorted({*sides[0], *sides[1]}):
        first, second = (side.get(name) for side in sides)
        shown = ["" if value is None else f"{value:.6g}" for value in (first, second)]
        yield name, *shown, "" if first is None or second is None else f"{second - first:+.4g}"


def _shift(registry: Registry, one: Version, other: Version) -> float | None:
    """Return the PSI between the scores of the two samples, where both have the same bins."""
    found = [registry.reference(version) for version in (one, other)]
    if found[0] is None or found[1] is None:
        return None
    scores = [reference["score"] for reference in found if reference is not None]
    if any(score["kind"] != "number" or not score["edges"] for score in scores):
        return None
    if scores[0]["edges"] != scores[1]["edges"]:
        return None
    return population_stability(scores[1]["counts"], scores[0]["counts"])


def _evidence(services: Services, folder: Path, one: Version, other: Version) -> Iterator[Json]:
    """Yield the evidence of the pipelines in which one was the champion and the other its challenger."""
    for spec in iter_specs(folder):
        if isinstance(spec, Spec) and spec.model.name == one.manifest.name:
            for champion, challenger in ((one, other), (other, one)):
                found = gather(services, spec, champion, challenger)
                if found["nights"]:
                    yield found


def _nights(evidence: Json) -> Part:
    title = f"{evidence['pipeline']}: {evidence['challenger']} beside {evidence['champion']}"
    return Part(title, ("", "", "95 % interval"), tuple(_figures(evidence)))


def _figures(evidence: Json) -> Iterator[tuple[str, ...]]:
    figures, outcomes = evidence["accumulated"]["figures"], evidence["outcomes"]
    yield "nights", f"{len(evidence['nights']):,}", ""
    yield "rows", f"{figures['rows']:,}", ""
    for name in ("correlation", "psi", "flip_share"):
        if figures.get(name) is not None:
            yield name.replace("_", " "), f"{figures[name]:.4g}", ""
    if not outcomes["rows"]:
        yield "outcomes", str(outcomes["reason"]), ""
        return
    for name, words in MEASURES.items():
        found = outcomes["difference"][name]
        value = figure(found["value"], "+.4f")
        yield f"{words}, challenger minus champion", value, interval(found, " to ", "+.4f")
