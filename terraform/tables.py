"""Write the predictions tables of pipelines as Terraform reads them: a file of `terraform/pipelines/` for each.

    .venv/bin/python terraform/tables.py credit_default --task binary --key account_id=INT64

A spec says neither what its model predicts nor the types of its keys. They are given once and stand in the file;
without arguments, all files are written again. What a table looks like is not repeated here: nightscore is asked what
it would create.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nightscore.operations import ensure_operations_table
from nightscore.prediction_schema import prediction_columns
from nightscore.predictions import ensure_table
from nightscore.settings import Settings
from nightscore.spec import Spec
from nightscore.specs import load_spec
from nightscore.warehouse import Warehouse

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "pipelines"
SPECS = HERE.parent / "dags" / "pipelines"

Json = dict[str, Any]


class EmptyProject:
    """A BigQuery project in which there is nothing, and which remembers the tables that it is asked to create."""

    def __init__(self) -> None:
        self.created: list[Json] = []

    def get_table(self, *_: Any, **__: Any) -> Any:
        """Find none."""
        from google.api_core.exceptions import NotFound

        raise NotFound("nothing is here")

    get_dataset = get_table

    def create_dataset(self, *_: Any, **__: Any) -> None:
        """Create it, which nobody looks at."""

    def create_table(self, table: Any, **_: Any) -> None:
        """Remember the table."""
        self.created.append(table.to_api_repr())


def wanted(create: Callable[[Warehouse], None]) -> Json:
    """Return the table that nightscore creates where it finds none, as Terraform is told of it."""
    project = EmptyProject()
    create(Warehouse(Settings(project="project", bucket="bucket"), project))  # type: ignore[arg-type]
    [table] = project.created
    return {
        "dataset": table["tableReference"]["datasetId"],
        "name": table["tableReference"]["tableId"],
        "description": table.get("description"),
        "partition": table["timePartitioning"]["field"],
        "clustering": table["clustering"]["fields"],
        "schema": [{key: value for key, value in field.items() if value != []} for field in table["schema"]["fields"]],
    }


def operations_table(name: str) -> Json:
    """Return a table of the operations dataset."""
    return wanted(lambda warehouse: ensure_operations_table(warehouse, name))


def predictions_tables(spec: Spec, task: str, keys: Mapping[str, str]) -> dict[str, Json]:
    """Return the tables that a pipeline publishes into, by name.

    Args:
        spec: the pipeline's spec.
        task: what its model predicts: `binary`, `multiclass` or `regression`.
        keys: name → GoogleSQL type of its keys.
    """
    columns = prediction_columns(spec.model.name, keys, spec.features.partition, task)

    def table(name: str, description: str | None) -> Json:
        return wanted(
            lambda warehouse: ensure_table(
                SimpleNamespace(spec=spec, warehouse=warehouse),  # type: ignore[arg-type]
                columns,
                name,
                description,
            )
        )

    own, *shadow = spec.tables
    found = [
        table(own, None),
        *(table(name, f"What challengers would have published into {own}.") for name in shadow),
    ]
    return {item.pop("name"): item for item in found}


def content(pipeline: str, task: str, keys: Mapping[str, str]) -> Json:
    """Return what the file of a pipeline holds."""
    tables = predictions_tables(load_spec(pipeline, SPECS), task, keys)
    return {"task": task, "keys": dict(keys), "tables": tables}


def write(pipeline: str, task: str, keys: Mapping[str, str]) -> None:
    """Write the file of a pipeline."""
    (FOLDER / f"{pipeline}.json").write_text(json.dumps(content(pipeline, task, keys), indent=2) + "\n")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pipeline", nargs="?", help="the pipeline's name; none: all that have a file")
    parser.add_argument("--task", choices=["binary", "multiclass", "regression"])
    parser.add_argument("--key", action="append", default=[], metavar="NAME=TYPE")
    given = parser.parse_args()
    if given.pipeline:
        if not given.task or not given.key:
            parser.error("a pipeline needs --task and --key")
        write(given.pipeline, given.task, dict(item.split("=", 1) for item in given.key))
        return
    for path in sorted(FOLDER.glob("*.json")):
        known = json.loads(path.read_text())
        write(path.stem, known["task"], known["keys"])


if __name__ == "__main__":
    main()
