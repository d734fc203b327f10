"""Write a version into the files that hold it: `stamp.py 0.1.0.dev20261130225501`."""

import re
import sys
from pathlib import Path

PLACES = {"pyproject.toml": r'(?m)^version = ".*"$', "include/nightscore/__init__.py": r'(?m)^__version__ = ".*"$'}


def main() -> None:
    """Replace exactly one line in each of them."""
    version = sys.argv[1]
    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+(\.dev[0-9]+)?", version):
        sys.exit(f"{version!r} is not a version like 0.1.0 or 0.1.0.dev20261130225501.")
    for name, pattern in PLACES.items():
        path = Path(name)
        text, count = re.subn(
            pattern, lambda found: f'{found.group().split(" = ")[0]} = "{version}"', path.read_text(encoding="utf-8")
        )
        if count != 1:
            sys.exit(f"{name} has {count} lines that hold the version, and not one.")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
