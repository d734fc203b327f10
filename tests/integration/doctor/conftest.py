"""A deployment that has had its first night, seen from the same machine and from afar."""

import dataclasses
import json
import uuid
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from cloud import OWN, Cloud
from nightscore import clients
from nightscore.clients import build_storage
from nightscore.doctor.deployment import Deployment
from nightscore.doctor.examination import NAMES, examine
from nightscore.doctor.finding import Finding
from nightscore.run import build_services

ROWS = 40
DAY_MS = 86_400_000


class Home:
    """Where the deployment is: a folder with one pipeline, datasets and a bucket of its own."""

    def __init__(self, bench: Any, cloud: Cloud, local: dict[str, str]) -> None:
        self.bench = bench
        self.cloud = cloud
        self.name = bench.name
        self.folder = bench.folder
        self.config = bench.services.warehouse.config
        self.client = bench.services.warehouse.client
        self.bucket = bench.services.bucket.client.bucket(self.name)
        self.operations = f"{self.config.project}.{self.config.operations_dataset}"
        self.remote = {
            "NIGHTSCORE_PROJECT": self.config.project,
            "NIGHTSCORE_BUCKET": self.config.bucket,
            "NIGHTSCORE_STAGING_DATASET": self.config.staging_dataset,
            "NIGHTSCORE_OPERATIONS_DATASET": self.config.operations_dataset,
            "NIGHTSCORE_HOME": str(self.folder),
        }
        self.local = {**local, **self.remote}

    def look(self, *families: str, environment: dict[str, str] | None = None, **changes: Any) -> list[Finding]:
        """Return what doctor finds, from afar unless the environment says otherwise."""
        clients._credentials.cache_clear()
        options = {"timeout": 60.0, **changes}
        pipelines = self.folder / "dags" / "pipelines"
        place = Deployment(self.remote if environment is None else environment, self.folder, pipelines, **options)
        return [item.finding for item in examine(place, families or NAMES)]

    def grant(self, resource: str, *missing: str) -> None:
        """Let the process do all that is listed on a resource but this."""
        everything = {name for group in permissions().values() for name in group}
        self.cloud.grants.setdefault(OWN, {})[resource] = everything - set(missing)


def permissions() -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, str]] = json.loads(
        files("nightscore").joinpath("schemas/permissions.json").read_text()
    )
    return content


@pytest.fixture(scope="module")
def cloud(local_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Google Cloud, and this process's way there."""
    made = Cloud(local_servers, tmp_path_factory.mktemp("cloud"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made
    made.close()
    clients._credentials.cache_clear()


@pytest.fixture(scope="module")
def home(
    cloud: Cloud, settings: Any, new_bench: Any, local_servers: Any, tmp_path_factory: pytest.TempPathFactory
) -> Home:
    """The deployment, after its first night, with everything as it should be."""
    bench = new_bench(tmp_path_factory.mktemp("home"))
    name = bench.name = f"d{uuid.uuid4().hex[:10]}"
    changes = {"bucket": name, "staging_dataset": f"{name}_staging", "operations_dataset": f"{name}_operations"}
    bucket = build_storage(settings).bucket(name)
    bucket.versioning_enabled = True
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.lifecycle_rules = json.loads(files("nightscore").joinpath("schemas/lifecycle.json").read_text())["rule"]
    bucket.soft_delete_policy.retention_duration_seconds = 7 * 86400
    bucket.create(location="US")
    bench.services = build_services(dataclasses.replace(settings, **changes))
    ids = pa.array(range(ROWS))
    table = pa.table({"id": ids, "x": pa.array(np.linspace(0, 1, ROWS)), "snapshot_date": pa.array([bench.day] * ROWS)})
    bench.write("features", table)
    bench.register(LogisticRegression().fit(table.select(["x"]).to_pandas(), np.arange(ROWS) % 2), table.select(["x"]))
    folder = bench.folder / "dags" / "pipelines" / name
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(bench.spec_text())
    bench.run()
    staging = bench.services.warehouse.client.get_dataset(f"{name}_staging")
    staging.default_table_expiration_ms = 30 * DAY_MS
    bench.services.warehouse.client.update_dataset(staging, ["default_table_expiration_ms"])
    made = Home(bench, cloud, local_servers.environment())
    for resource in ("project", name, f"{name}_staging", f"{name}_operations"):
        made.grant(resource)
    return made
