"""Versions: is what is installed what nightscore was tested with, by the bounds that its package states?"""

import platform
from collections.abc import Iterator
from importlib import metadata

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, ok

NAMED = ("apache-airflow", "celery", "google-cloud-bigquery", "great-expectations", "pandas", "pyarrow", "scikit-learn")


def check_versions(_: Deployment) -> Iterator[Finding]:
    """Compare every installed package that nightscore names with the bounds that it names."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    own = metadata.distribution("nightscore")
    python, wanted = platform.python_version(), str(own.metadata["Requires-Python"])
    if SpecifierSet(wanted).contains(python, prereleases=True):
        yield ok("Python", f"Python {python}; nightscore {own.version}")
    else:
        yield fault("Python", f"Python {python} is not {wanted}.", "Install nightscore with another Python.")
    bounds: dict[str, SpecifierSet] = {}
    needed: set[str] = set()
    for requirement in map(Requirement, own.requires or ()):
        bounds[requirement.name] = bounds.get(requirement.name, SpecifierSet()) & requirement.specifier
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed.add(requirement.name)
    found = {name: _version(name) for name in bounds}
    wrong = False
    for name, specifier in sorted(bounds.items()):
        version = found[name]
        if version is None and name in needed:
            wrong = True
            yield fault(name, f"{name} is not installed.", f"pip install '{name}{specifier}'")
        elif version is not None and not specifier.contains(version, prereleases=True):
            wrong = True
            yield fault(
                name, f"{name} {version} is installed; {specifier} is needed.", f"pip install '{name}{specifier}'"
            )
    if not wrong:
        shown = ", ".join(f"{name} {version}" for name in NAMED if (version := found.get(name) or _version(name)))
        yield ok("packages", f"{shown}; all within their bounds")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
