"""Print the changelog's section of a tag, if tag, package and changelog agree: `release_notes.py v0.1.0`."""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print the section, or say everything that does not agree."""
    tag = sys.argv[1]
    version = tag.removeprefix("v")
    faults = []
    if not re.fullmatch(r"v[0-9]+\.[0-9]+\.[0-9]+", tag):
        faults.append(f"{tag!r} is not a tag like v1.2.3.")
    packaged = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if packaged != version:
        faults.append(f"pyproject.toml says {packaged}.")
    imported = re.search(r'^__version__ = "(.*)"$', Path("include/nightscore/__init__.py").read_text(), re.MULTILINE)
    if imported is None or imported[1] != version:
        faults.append(f"include/nightscore/__init__.py says {imported[1] if imported else 'nothing'}.")
    section = changes(Path("CHANGELOG.md").read_text(encoding="utf-8"), version)
    if not section:
        faults.append(f"CHANGELOG.md has nothing under `## {version}`.")
    if faults:
        sys.exit(f"{tag} cannot be released: {' '.join(faults)}")
    sys.stdout.write(section + "\n")


def changes(changelog: str, version: str) -> str:
    """Return what stands under a version's heading, without the heading."""
    parts = re.split(r"(?m)^## +", changelog)[1:]
    found = [part.partition("\n")[2].strip() for part in parts if re.match(rf"\[?{re.escape(version)}\]?(\s|$)", part)]
    return found[0] if len(found) == 1 else ""


if __name__ == "__main__":
    main()
