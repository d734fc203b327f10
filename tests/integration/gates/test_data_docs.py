"""Data Docs of a run: kept with its records, without rows, served on this machine."""

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from nightscore.clean import iter_leftovers
from nightscore.gates.data_docs import GATES, DataDocsMissingError, site_of
from nightscore.gates.serving import PortTakenError, serve
from nightscore.records import RunRecords

DAY = dt.timedelta(days=1)
WANTED = [
    ("expect_column_values_to_be_between", {"column": "x", "max_value": 50}),
    ("expect_column_values_to_match_regex", {"column": "owner", "regex": "^Jane"}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "owner", "value_set": ["Jane Roe"]}),
]
SUITE = {
    "name": "accounts",
    "expectations": [{"type": name, "kwargs": kwargs, "severity": "warning"} for name, kwargs in WANTED],
}


@pytest.fixture(scope="module")
def night(new_bench, tmp_path_factory):
    """A published run, of a suite file, on a source whose partitions must be named."""
    bench = new_bench(tmp_path_factory.mktemp("docs"))
    days = pa.array([bench.day] * 60, pa.date32())
    owners = [f"John Doe {i}" if i == 59 else "Jane Roe" for i in range(60)]
    table = pa.table({"id": range(60), "snapshot_date": days, "x": [float(i) for i in range(60)], "owner": owners})
    bench.write("loaded", table)
    bench.sql(
        "CREATE TABLE {dataset}.features (id INT64, snapshot_date DATE, x FLOAT64, owner STRING) "
        "PARTITION BY snapshot_date OPTIONS (require_partition_filter = TRUE)"
    )
    bench.sql("INSERT INTO {dataset}.features SELECT id, snapshot_date, x, owner FROM {dataset}.loaded")
    rows = table.select(["x"])
    bench.register(LinearRegression().fit(rows.to_pandas(), rows.to_pandas().x), rows)
    (bench.folder / "accounts.json").write_text(json.dumps(SUITE))
    bench.run_id = bench.run(bench.spec(checks={"features": {"suite": "accounts.json"}}))["run_id"]
    bench.records = RunRecords(bench.services.bucket, bench.name, bench.run_id)
    return bench


def test_the_gates_records_say_what_was_asked_and_where_the_pages_are(night):
    records = {gate: night.records.read(gate) for gate in GATES}
    assert [record["verdict"] for record in records.values()] == ["warn", "pass"]
    assert [record["queries"] for record in records.values()] == [7, 5]
    assert records["prediction_gate"]["bytes_processed"] > 0
    assert records["feature_gate"]["data_docs"] == night.records.uri + "data_docs/feature_gate.html"
    failing = [check["failing_keys"] for check in records["feature_gate"]["checks"] if not check["passed"]]
    assert len(failing[0]) == 5
    assert all(row["id"] > 50 for row in failing[0])
    assert failing[1:] == [[{"id": 59}], []]


def test_a_page_needs_no_network_and_holds_no_row(night):
    site = site_of(night.records)
    assert list(site) == ["/", "/feature_gate.html", "/prediction_gate.html"]
    page = site["/feature_gate.html"].decode()
    links = re.findall(r'(?:href|src)\s*=\s*"([^"]*)"', page)
    assert links
    assert all(link.startswith("#") for link in links), links
    assert not re.findall(r"https?://|url\(|@import", page)
    assert "9 unexpected values found. 15% of 60 total rows." in re.sub(r"\s+", " ", page)
    assert "values must be less than or equal to" in page
    assert "accounts_" not in page
    for value in ("59.0", "51.0"):
        assert value not in page
    home = site["/"].decode()
    assert f"{night.name}, run {night.run_id}" in home
    assert '<a href="/feature_gate.html">feature gate</a>: warn' in home


def test_pages_stay_when_parts_are_cleaned(night):
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    found = [item.object.name for item in iter_leftovers(night.services.bucket, later, DAY, night.name)]
    assert found
    assert not [name for name in found if "data_docs" in name]


def test_a_run_without_pages_says_so(night):
    other = RunRecords(night.services.bucket, night.name, "2026-11-19-00000000")
    with pytest.raises(DataDocsMissingError, match=r"The run 2026-11-19-0{8} of .* has no Data Docs"):
        site_of(other)


def test_docs_serves_the_pages_until_it_is_interrupted(night, settings):
    variables = {
        "NIGHTSCORE_PROJECT": settings.project,
        "NIGHTSCORE_BUCKET": settings.bucket,
        "BIGQUERY_EMULATOR_HOST": settings.bigquery_host,
        "BIGQUERY_STORAGE_EMULATOR_HOST": settings.bigquery_storage_host,
        "STORAGE_EMULATOR_HOST": settings.storage_host,
    }
    command = [sys.executable, "-c", "from nightscore.cli import main; main()", "docs", night.run_id, "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}) as process:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urllib.request.urlopen(f"{address}prediction_gate.html") as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.read() == site_of(night.records)["/prediction_gate.html"]
        for path, headers in (("etc/passwd", {}), ("", {"Host": "elsewhere.example"})):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(address + path, headers=headers))
            assert refused.value.code == 404
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_a_port_that_is_taken_is_told():
    with serve({"/": b""}, 0) as server:
        port = server.server_port
        with pytest.raises(PortTakenError, match=f"cannot listen on 127.0.0.1:{port}"), serve({"/": b""}, port):
            pass
