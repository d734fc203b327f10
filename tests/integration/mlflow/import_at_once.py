"""A program: import what an alias means in MLflow while another process does the same; print the version's digest.

import_at_once.py URL NAME FOLDER
"""

import os
import sys
import time
from pathlib import Path

from nightscore.arguments import parse_model
from nightscore.registry.manifest import Origin
from nightscore.registry.sources.mlflow import MlflowSource
from nightscore.registry.sources.source import Fetched
from nightscore.registry.store import Registry
from nightscore.run import build_services
from nightscore.settings import read_settings


class Meeting(MlflowSource):
    """MLflow, of which both processes have fetched the model before either stores it."""

    folder: Path

    def fetch(self, origin: Origin, folder: Path) -> Fetched:
        """Fetch, and wait for the other process."""
        found = super().fetch(origin, folder)
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < 2:
            time.sleep(0.005)
        return found


def main() -> None:
    """Import, beside the other process."""
    url, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    source = Meeting(url)
    source.folder = folder
    registry = Registry(build_services(read_settings(os.environ)).bucket, sources={"mlflow": source})
    sys.stdout.write(registry.resolve(parse_model(f"mlflow:{name}@champion")).digest)


if __name__ == "__main__":
    main()
