"""Short ways to say what a test of a pipeline is about."""

import datetime as dt
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from google.cloud import bigquery
from pyarrow import parquet
from skops import io as skops_io

from nightscore.pipeline import run_pipeline, start
from nightscore.registry.store import Version
from nightscore.run import Services
from nightscore.spec import Spec
from nightscore.specs import parse_spec


class Bench:
    """Short ways to say what a test is about: tables, models, specs, published rows."""

    def __init__(self, services: Services, folder: Path, name: str) -> None:
        self.services = services
        self.folder = folder
        self.name = name
        self.day = dt.date(2026, 11, 19)

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Run a statement, with {dataset} filled in."""
        return self.services.warehouse.query(text.format(dataset=self.name), doing="testing").rows

    def write(self, table: str, data: pa.Table, partition: str | None = "snapshot_date") -> str:
        """Replace a table of the test's dataset."""
        warehouse = self.services.warehouse
        warehouse.create_dataset(self.name, "Of one test.")
        config = bigquery.LoadJobConfig(
            source_format="PARQUET",
            write_disposition="WRITE_TRUNCATE",
            time_partitioning=bigquery.TimePartitioning(field=partition) if partition else None,
        )
        buffer = io.BytesIO()
        parquet.write_table(data, buffer)
        buffer.seek(0)
        warehouse.client.load_table_from_file(buffer, f"{self.name}.{table}", job_config=config).result()
        return f"{self.name}.{table}"

    def register(self, estimator: Any, sample: pa.Table, alias: str = "champion", **kwargs: Any) -> Version:
        """Register a fitted estimator under the test's name."""
        model, rows = self.folder / "model.skops", self.folder / "sample.parquet"
        skops_io.dump(estimator, model)
        parquet.write_table(sample, rows)
        return self.services.registry.register(self.name, model, rows, alias=alias, **kwargs)

    def spec_text(self, **changes: Any) -> str:
        """Return a small valid spec; keyword arguments replace or add parts."""
        content: dict[str, Any] = {
            "features": {
                "table": f"{self.name}.features",
                "partition": "snapshot_date",
                "keys": ["id"],
                **changes.pop("features", {}),
            },
            "model": {"name": self.name},
            "predictions": {"table": f"{self.name}.predictions"},
            "limits": {"shards": 2},
        }
        content.update(changes)
        content["features"] = {key: value for key, value in content["features"].items() if value is not None}
        return yaml.safe_dump(content)

    def spec(self, **changes: Any) -> Spec:
        """Return the parsed spec."""
        return parse_spec(self.name, self.spec_text(**changes), self.folder)

    def run(self, spec: Spec | None = None, day: dt.date | None = None, **kwargs: Any) -> dict[str, Any]:
        """Run a pipeline from end to end in this process."""
        return run_pipeline(start(spec or self.spec(), day or self.day, self.services, **kwargs))

    def published(self, order: str = "id", table: str = "predictions") -> pa.Table:
        """Return the predictions table, ordered."""
        rows = self.sql(f"SELECT * FROM {{dataset}}.{table} ORDER BY {order}")
        return pa.Table.from_pylist(rows)
