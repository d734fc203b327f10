"""A night needs no permission to create what is there already: datasets belong to whoever provisions the project."""

import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from faults.exchange import status
from faults.network import Network, Rule
from nightscore.loading.tables import load_files
from nightscore.run import build_services
from nightscore.warehouse import DatasetError

ROWS = 50


@pytest.fixture
def network(settings):
    """Proxies before the servers; BigQuery's lets nobody create a dataset."""
    made = Network(settings)
    made.begin(Rule(lambda call: call.what.startswith("create dataset"), status(403)))
    yield made
    made.close()


@pytest.fixture
def forbidden(network, settings):
    """The services of somebody who may not create datasets."""
    hosts = {"bigquery_host": network.bigquery.url, "storage_host": network.storage.url}
    return build_services(dataclasses.replace(settings, **hosts))


def partition(day):
    ids = pa.array(range(ROWS))
    return pa.table({"id": ids, "x": pa.array(np.linspace(0, 1, ROWS)), "snapshot_date": pa.array([day] * ROWS)})


def test_a_night_creates_no_dataset_that_is_there(bench, network, forbidden):
    days = [bench.day, bench.day + dt.timedelta(days=1)]
    bench.write("features", pa.concat_tables([partition(day) for day in days]))
    inputs = partition(bench.day).select(["x"])
    bench.register(LogisticRegression().fit(inputs.to_pandas(), np.arange(ROWS) % 2), inputs)
    bench.run(day=days[0])
    network.journal.calls.clear()
    bench.services = forbidden
    assert bench.run(day=days[1])["status"] == "published"
    asked = [call.what for call in network.journal.calls if call.server == "bigquery"]
    assert len(asked) > 20
    assert [what for what in asked if what.startswith(("create dataset", "create table predictions"))] == []


def test_a_dataset_that_is_missing_and_may_not_be_created(bench, forbidden, settings):
    with pytest.raises(DatasetError) as refused:
        forbidden.warehouse.create_dataset(bench.name, "Of one test.")
    assert str(refused.value) == (
        f"There is no dataset {settings.project}.{bench.name}, and it could not be created: Forbidden, says the test. "
        f"Create it (`bq mk --location=US --dataset {settings.project}:{bench.name}`), or grant "
        "bigquery.datasets.create on the project."
    )


def test_files_go_into_a_table_that_is_there(bench, network, forbidden, tmp_path):
    bench.write("features", partition(bench.day))
    file = tmp_path / "rows.csv"
    file.write_text(f"id,x,snapshot_date\n7,0.5,{bench.day}\n")
    network.begin(
        Rule(lambda call: call.what in ("create table features", f"create dataset {bench.name}"), status(403))
    )
    report = load_files(forbidden.warehouse, f"{bench.name}.features", [file])
    assert (report.rows, report.partitions) == (1, 1)
