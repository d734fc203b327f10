"""Loading the active release in Airflow: the version that the pointer names, if all of it is here.

Airflow's folder is a copy of the bucket, made object by object. The pointer may be here before what it points to; until
then, for a while, the release that it has replaced is loaded.
"""

import datetime as dt
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow.sdk import DAG

from nightscore.release_files import FOLDER, Manifest, NotWholeError, is_dag_file, require_whole

log = logging.getLogger(__name__)

LAG = dt.timedelta(minutes=15)  # after that, what is missing is not late: the version is damaged


def released_dags(pointer: str, release: Mapping[str, Any]) -> dict[str, DAG]:
    """Return the DAGs of the active release by their ids, for the pointer's globals.

    Args:
        pointer: the path of the file that calls this.
        release: `version`, `manifest` (its digest), `at` (when it was activated), `previous` (the like, or None).

    Raises:
        NotWholeError: neither release is whole; Airflow shows it as an import error, and looks again.
    """
    folder, manifest = _choose(Path(pointer).parent / FOLDER, release)
    # Tasks read their spec from this folder, in this same process: the DAG and its spec are of one version. It counts
    # more than what the deployment says, which cannot know the version.
    os.environ["NIGHTSCORE_PIPELINES_DIR"] = str(folder / "pipelines")
    found: dict[str, DAG] = {}
    for file in manifest.files.values():
        if is_dag_file(file.path):
            found |= _run(folder, file.path, file.stored)
    return found


def _choose(folder: Path, release: Mapping[str, Any]) -> tuple[Path, Manifest]:
    version, previous = release["version"], release["previous"]
    try:
        return folder / version, require_whole(folder / version, version, release["manifest"])
    except NotWholeError as error:
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(release["at"])
        if previous is None or age > LAG:
            raise
        log.warning("%s Until then, the release %s is used.", error, previous["version"])
        before = folder / previous["version"]
        return before, require_whole(before, previous["version"], previous["manifest"])


def _run(folder: Path, path: str, stored: str) -> dict[str, DAG]:
    """Run a DAG file as Python would, under its own name and place."""
    module = ModuleType(f"nightscore_release_{path.removesuffix('.py').replace('-', '_').replace('.', '_')}")
    module.__file__ = str(folder / path)
    sys.modules[module.__name__] = module  # where dataclasses and type hints look their names up
    code = compile((folder / stored).read_bytes(), str(folder / stored), "exec")
    exec(code, module.__dict__)  # noqa: S102 - its digest is the manifest's, whose digest is the pointer's
    return {value.dag_id: value for value in vars(module).values() if isinstance(value, DAG)}
