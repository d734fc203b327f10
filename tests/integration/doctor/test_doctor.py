"""Doctor on a deployment that is well, and on one with each fault made for real."""

import contextlib
import datetime as dt
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from google.cloud import bigquery

from nightscore.operations import table_columns

OK, NOT_CHECKED, WARNING, FAULT, UNREACHABLE = "ok", "not checked", "warning", "fault", "unreachable"
SCORER = "scorer@my-project.iam.gserviceaccount.com"


def told(findings, *statuses):
    """What was found of these statuses: check → what, and what to do."""
    return {item.check: (item.status, item.found, item.fix) for item in findings if item.status in statuses}


def wrong(findings):
    return told(findings, WARNING, FAULT, UNREACHABLE)


def test_all_is_well_from_afar(home):
    found = home.look()
    assert wrong(found) == {}
    assert sorted(told(found, NOT_CHECKED)) == ["Airflow", "processes"]
    assert {item.check for item in found if item.status == OK} >= {
        "BigQuery",
        "Cloud Storage",
        "Storage Read API",
        "clock",
        "project local",
        f"bucket {home.name}",
        f"features dataset local.{home.name}",
        f"predictions dataset local.{home.name}",
        f"operations dataset local.{home.name}_operations",
        f"staging dataset local.{home.name}_staging",
        "staging expiration",
        "fences",
        "versioning",
        home.name,
    }
    left = [table.table_id for table in home.client.list_tables(home.config.staging_dataset)]
    assert left != []
    assert [name for name in left if "doctor" in name] == []


def test_all_is_well_on_local_servers(home):
    found = home.look(environment=home.local)
    assert wrong(found) == {}
    local = "a local server has no permissions and no such settings"
    assert told(found, NOT_CHECKED)["permissions"] == (NOT_CHECKED, local, None)
    assert sorted(told(found, NOT_CHECKED)) == ["Airflow", "bucket", "permissions", "processes", "staging expiration"]


def test_without_any_pipeline(home, tmp_path):
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    place = {**home.local, "NIGHTSCORE_HOME": str(tmp_path)}
    ended = doctor(place, "--json", "--only", "pipelines", "--only", "settings")
    content = json.loads(ended.stdout)
    assert (ended.returncode, content["status"], content["counts"]["ok"]) == (0, "ok", 3)
    assert content["checks"][-1]["found"] == f"there are none in {tmp_path}/dags/pipelines"


# --- the bucket ---


@contextlib.contextmanager
def bucket_without(home, **changes):
    home.bucket.reload()
    before = {name: home.bucket._properties.get(name) for name in changes}
    home.bucket.client._connection.api_request("PATCH", home.bucket.path, data=changes)
    yield
    home.bucket.client._connection.api_request("PATCH", home.bucket.path, data=before)


def test_a_bucket_with_settings_of_its_own(home):
    access = {"uniformBucketLevelAccess": {"enabled": False}, "publicAccessPrevention": "inherited"}
    changes = {
        "versioning": {"enabled": False},
        "iamConfiguration": access,
        "lifecycle": None,
        "softDeletePolicy": None,
    }
    with bucket_without(home, **changes):
        found = wrong(home.look("bucket"))
    uri = f"gs://{home.name}"
    update = f"gcloud storage buckets update {uri}"
    rules = "Delete where daysSinceCustomTime 1, matchesPrefix runs/, matchesSuffix .parquet; "
    rules += "Delete where daysSinceNoncurrentTime 7, matchesPrefix leases/; AbortIncompleteMultipartUpload where age 7"
    lifecycle = found.pop("lifecycle")
    assert lifecycle[:2] == (WARNING, f"Rules are missing: {rules}.")
    assert lifecycle[2].startswith(f"{update} --lifecycle-file=")
    assert Path(lifecycle[2].split("=")[1].split(" ")[0]).is_file()
    assert found == {
        "versioning": (
            FAULT,
            f"{uri} keeps no earlier versions: an alias or a model that was overwritten or deleted is lost.",
            f"{update} --versioning",
        ),
        "uniform access": (
            WARNING,
            f"Objects of {uri} may have access lists of their own, which no policy shows.",
            f"{update} --uniform-bucket-level-access",
        ),
        "public access": (
            WARNING,
            f"Nothing keeps {uri} from being made public but an organisation policy, if there is one.",
            f"{update} --public-access-prevention",
        ),
        "soft delete": (
            WARNING,
            "Soft delete is off: a bucket that somebody deletes with its objects cannot be restored.",
            f"{update} --soft-delete-duration=7d",
        ),
    }


def test_a_bucket_that_is_not_there(home):
    found = home.look("bucket", environment={**home.remote, "NIGHTSCORE_BUCKET": "no-such-bucket"})
    create = "gcloud storage buckets create gs://no-such-bucket --project=local --location=US"
    text = "There is no bucket gs://no-such-bucket."
    assert wrong(found) == {"bucket": (FAULT, text, f"{create} --uniform-bucket-level-access")}


def test_a_bucket_far_from_the_datasets(home):
    with contextlib.suppress(Exception):
        home.bucket.client.bucket(f"{home.name}-far").create(location="asia-east1")
    place = {**home.remote, "NIGHTSCORE_BUCKET": f"{home.name}-far", "NIGHTSCORE_LOCATION": "EU"}
    found, far = home.look("bucket", environment=place), f"gs://{home.name}-far"
    assert wrong(found)["location"] == (
        FAULT,
        f"{far} is in ASIA-EAST1, the datasets in EU: BigQuery refuses to load the predictions.",
        f"Make a bucket in EU, copy {far}/registry into it (gcloud storage cp -r), and set NIGHTSCORE_BUCKET.",
    )
    assert told(home.look("bucket"), OK)["location"][1] == f"gs://{home.name} is in US, the datasets in US"


# --- datasets and tables ---


def test_datasets_elsewhere(home):
    found = wrong(home.look("datasets", environment={**home.remote, "NIGHTSCORE_LOCATION": "europe-west4"}))
    assert found["operations dataset"] == (
        FAULT,
        f"{home.operations} is in US; NIGHTSCORE_LOCATION is europe-west4.",
        "NIGHTSCORE_LOCATION=US, or copy the dataset to europe-west4: no query spans two.",
    )
    assert {status for status, _, _ in found.values()} == {FAULT}
    assert len(found) == 3


def test_datasets_that_are_not_there(home):
    found = wrong(home.look("datasets", environment={**home.remote, "NIGHTSCORE_OPERATIONS_DATASET": "nowhere"}))
    text = "There is no dataset local.nowhere yet; the first run creates it if it has bigquery.datasets.create."
    assert found == {"operations dataset": (WARNING, text, "bq mk --location=US --dataset local:nowhere")}


def test_staging_tables_that_never_expire(home):
    dataset = home.client.get_dataset(home.config.staging_dataset)
    dataset.default_table_expiration_ms = None
    home.client.update_dataset(dataset, ["default_table_expiration_ms"])
    found = wrong(home.look("datasets"))
    dataset = home.client.get_dataset(dataset.reference)
    dataset.default_table_expiration_ms = 30 * 86_400_000
    home.client.update_dataset(dataset, ["default_table_expiration_ms"])
    name = f"local.{home.config.staging_dataset}"
    assert found == {
        "staging expiration": (
            WARNING,
            f"Tables of {name} get no expiration of their own: what a killed run did not date stays for ever.",
            f"ALTER SCHEMA `{name}` SET OPTIONS (default_table_expiration_days = 30);",
        )
    }


@contextlib.contextmanager
def evidence_table(home, change, *, partitioned=True, clustered=True):
    """The one table that the first night did not make, made by somebody else."""
    fields = {column.name: column.to_api() for column in table_columns("evidence")}
    change(fields)
    table = bigquery.Table(f"{home.operations}.evidence", schema=list(fields.values()))
    if partitioned:
        table.time_partitioning = bigquery.TimePartitioning("DAY", field="partition_date")
    if clustered:
        table.clustering_fields = ["pipeline"]
    home.client.create_table(table)
    yield table
    home.client.delete_table(table)


def test_a_column_of_another_type(home):
    field = bigquery.SchemaField("run_id", "INT64")
    with evidence_table(home, lambda fields: fields.update(run_id=field)):
        found = wrong(home.look("operations tables"))
    full = f"{home.operations}.evidence"
    fix = (
        f"CREATE OR REPLACE TABLE `{full}` PARTITION BY partition_date CLUSTER BY pipeline AS "
        f"SELECT * REPLACE (CAST(`run_id` AS STRING) AS `run_id`) FROM `{full}`;"
    )
    assert found == {"evidence": (FAULT, f"{full}.run_id is INT64; nightscore writes STRING.", fix)}


def test_columns_that_are_missing_or_too_many(home):
    with evidence_table(home, lambda fields: fields.pop("run_id")):
        found = wrong(home.look("operations tables"))
    full = f"{home.operations}.evidence"
    assert found == {
        "evidence": (
            WARNING,
            f"{full} lacks run_id; the next run adds them.",
            f"Nothing, or ALTER TABLE `{full}` ADD COLUMN `run_id` STRING;",
        )
    }
    extra = bigquery.SchemaField("team", "STRING", mode="REQUIRED")
    with evidence_table(home, lambda fields: fields.update(team=extra)):
        found = wrong(home.look("operations tables"))
    assert found == {
        "evidence": (
            FAULT,
            f"{full} requires team, which nightscore does not write.",
            f"ALTER TABLE `{full}` ALTER COLUMN `team` DROP NOT NULL",
        )
    }


def test_partitions_and_clusters(home):
    full = f"{home.operations}.evidence"
    with evidence_table(home, lambda _: None, partitioned=False):
        text = f"{full} is not partitioned by partition_date: queries read all of it, and runs wait for each other."
        assert wrong(home.look("operations tables"))["evidence"][:2] == (WARNING, text)
    with evidence_table(home, lambda _: None, clustered=False):
        text = f"{full} is not clustered by pipeline: queries of one pipeline read all of them."
        fix = f"bq update --clustering_fields=pipeline {full.replace('.', ':', 1)}"
        assert wrong(home.look("operations tables")) == {"evidence": (WARNING, text, fix)}


# --- permissions ---

GCLOUD = "gcloud projects add-iam-policy-binding local --member=PRINCIPAL --role="


def lacking(home, resource, *missing, **options):
    home.grant(resource, *missing)
    try:
        return wrong(home.look("permissions", **options))
    finally:
        home.grant(resource)


def test_permissions_on_the_project(home):
    found = lacking(home, "project", "bigquery.jobs.create", "bigquery.readsessions.create")
    text = (
        "Missing: bigquery.jobs.create (queries and load jobs, which this project pays for), "
        "bigquery.readsessions.create (shards read frozen rows by the Storage Read API)."
    )
    fix = f"{GCLOUD}roles/bigquery.jobUser; {GCLOUD}roles/bigquery.readSessionUser"
    assert found == {"project local": (FAULT, text, fix)}
    assert lacking(home, "project", "logging.logEntries.create") == {}
    place = {**home.remote, "NIGHTSCORE_EVENTS_LOG": "nightscore"}
    found = lacking(home, "project", "logging.logEntries.create", environment=place)
    assert found["project local"][2] == f"{GCLOUD}roles/logging.logWriter"


def test_permissions_on_the_bucket(home):
    found = lacking(home, home.name, "storage.objects.delete")
    binding = f"gcloud storage buckets add-iam-policy-binding gs://{home.name} --member=PRINCIPAL --role="
    assert found == {
        f"bucket {home.name}": (
            FAULT,
            "Missing: storage.objects.delete (leases and aliases are replaced, clean removes parts).",
            (
                f"{binding}roles/storage.objectUser --condition='title=all but versions of models,expression="
                """resource.name.extract("/objects/registry/models/{name}/versions/") == ""'"""
            ),
        )
    }
    found = lacking(home, home.name, "storage.objects.list")
    assert found[f"bucket {home.name}"][2] == f"{binding}roles/storage.objectViewer"
    found = lacking(home, home.name, "storage.buckets.get")
    assert found[f"bucket {home.name}"] == (
        WARNING,
        "Missing: storage.buckets.get (doctor reads the bucket's settings).",
        f"{binding}roles/storage.legacyBucketReader",
    )


@pytest.mark.parametrize(
    ("kind", "permission", "why"),
    [
        ("operations", "bigquery.tables.updateData", "records, fences, quarantined rows"),
        ("staging", "bigquery.tables.delete", "replays and loads remove their own tables"),
    ],
)
def test_permissions_on_datasets(home, kind, permission, why):
    name = f"{home.name}_{kind}"
    grant = f'GRANT `roles/bigquery.dataEditor` ON SCHEMA `local.{name}` TO "PRINCIPAL";'
    found = lacking(home, name, permission)
    assert found == {f"{kind} dataset local.{name}": (FAULT, f"Missing: {permission} ({why}).", grant)}


def test_what_may_not_even_be_looked_at(home):
    denied = (403, {"error": {"code": 403, "message": "Access Denied", "errors": [{"reason": "accessDenied"}]}})
    home.cloud.answers[f"/bigquery/v2/projects/local/datasets/{home.name}_operations"] = lambda: denied
    home.cloud.answers[f"/storage/v1/b/{home.name}"] = lambda: denied
    found = home.look("permissions", "datasets", "operations tables", "bucket")
    home.cloud.answers.clear()
    assert wrong(found)[f"operations dataset {home.operations}"] == (
        FAULT,
        "Missing: bigquery.datasets.get (is looked for before it is created).",
        f'GRANT `roles/bigquery.dataEditor` ON SCHEMA `{home.operations}` TO "PRINCIPAL";',
    )
    silent = told(found, NOT_CHECKED)
    assert {"fences", "runs", "bucket", "operations dataset"} <= set(silent)
    assert "may not be looked up, see permissions: " in silent["fences"][1]


def test_no_table_is_made_where_that_is_forbidden(home):
    home.cloud.asked.clear()
    found = home.look("permissions", writes=False)
    why = "that takes a table of its own, which --read-only forbids"
    assert told(found, NOT_CHECKED) == {f"staging dataset local.{home.name}_staging": (NOT_CHECKED, why, None)}
    assert [asked for asked in home.cloud.asked if asked.method in ("PUT", "PATCH", "DELETE")] == []
    assert [asked.path for asked in home.cloud.asked if asked.method == "POST" and asked.path.endswith("/tables")] == []


def test_permissions_of_the_account_that_it_acts_as(home):
    place = {**home.remote, "NIGHTSCORE_SERVICE_ACCOUNT": SCORER}
    found = wrong(home.look("reach", environment=place))
    fix = (
        f"gcloud iam service-accounts add-iam-policy-binding {SCORER} --role=roles/iam.serviceAccountTokenCreator "
        "--member=MEMBER, where MEMBER is who this process runs as"
    )
    assert found["BigQuery"] == (FAULT, f"This process may not act as {SCORER}.", fix)
    home.cloud.may_act_as.add(SCORER)
    found = home.look("permissions", environment=place)
    home.cloud.may_act_as.clear()
    [(status, _, fix)] = [item for check, item in wrong(found).items() if check.startswith("operations")]
    grant = f"GRANT `roles/bigquery.dataEditor` ON SCHEMA `{home.operations}` TO"
    assert (status, fix) == (FAULT, f'{grant} "serviceAccount:{SCORER}";')


# --- reach and clocks ---


def test_a_clock_that_is_wrong(home):
    home.cloud.clock = dt.timedelta(seconds=40)
    found = wrong(home.look("reach"))
    home.cloud.clock *= 0
    status, text, fix = found["clock"]
    assert (status, fix) == (FAULT, "timedatectl set-ntp true, on the machine itself: a container has its clock.")
    assert re.fullmatch(r"This machine's clock is (39|40|41) s behind \w+ ?\w+'s\. A lease.*", text)
    assert text.endswith("A lease lasts 60 s: runs would take each other for dead.")


def test_an_interface_that_is_switched_off(home):
    message = "BigQuery API has not been used in project 7 before or it is disabled."
    home.cloud.answers["/bigquery/"] = lambda: (403, {"error": {"code": 403, "message": message}})
    found = home.look("reach", "datasets", "bucket")
    home.cloud.answers.clear()
    assert wrong(found) == {
        "BigQuery": (FAULT, message, "gcloud services enable bigquery.googleapis.com --project=local")
    }
    why = "BigQuery cannot be asked; see reach"
    assert told(found, NOT_CHECKED) == {"datasets": (NOT_CHECKED, why, None)}


def test_a_service_that_is_ill(home):
    home.cloud.answers["/storage/"] = lambda: (503, {"error": {"code": 503, "message": "Backend Error"}})
    found = home.look("reach", "bucket")
    home.cloud.answers.clear()
    text = "storage.googleapis.com answered 503."
    fix = "Try again; https://status.cloud.google.com says whether it is Google's."
    assert wrong(found) == {"Cloud Storage": (UNREACHABLE, text, fix)}


# --- pipelines ---


@contextlib.contextmanager
def spec_of(home, name, text):
    folder = home.folder / "dags" / "pipelines" / name
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(text)
    yield folder
    (folder / "pipeline.yaml").unlink()
    folder.rmdir()


def test_a_spec_that_cannot_be_read(home):
    with spec_of(home, "broken", "features: [") as folder:
        found = wrong(home.look("pipelines"))
    status, text, fix = found["broken"]
    assert (status, fix) == (FAULT, f"Mend {folder}/pipeline.yaml.")
    assert text.startswith("broken: ")


def test_a_source_that_is_not_there(home):
    text = home.bench.spec_text(features={"table": f"{home.name}.feature"}, predictions={"table": f"{home.name}.other"})
    with spec_of(home, "missing", text):
        found = wrong(home.look("pipelines"))
    assert found == {
        "missing": (
            FAULT,
            f"There is no table local.{home.name}.feature in BigQuery. Did you mean `features`?",
            "Mend it; nightscore pipelines check missing says when it fits.",
        )
    }


def test_a_predictions_table_of_another_shape(home):
    home.bench.sql("CREATE TABLE {dataset}.odd (id STRING, snapshot_date DATE) PARTITION BY snapshot_date")
    with spec_of(home, "odd", home.bench.spec_text(predictions={"table": f"{home.name}.odd"})):
        found = [item for item in home.look("pipelines") if item.check == "odd"]
    home.bench.sql("DROP TABLE {dataset}.odd")
    assert {item.status for item in found} == {FAULT}
    assert any("odd: predictions.table:" in item.found and "id" in item.found for item in found)


def test_a_model_that_was_changed(home):
    bucket = home.bench.services.bucket
    path = f"registry/models/{home.name}/versions/1/model.skops"
    stored = bucket.read(path)
    assert bucket.swap(path, stored.data + b" ", stored.generation)
    found = wrong(home.look("pipelines"))
    bucket.swap(path, stored.data, bucket.read(path).generation)
    [(status, text, _)] = found.values()
    assert status == FAULT
    assert text.startswith(f"gs://{home.name}/{path} was changed after it was registered: its SHA-256 is ")


# --- the command ---


def doctor(environment, *arguments, timeout=120):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSCORE", "AIRFLOW"))}
    program = [sys.executable, "-c", "from nightscore.cli import main; main()", "doctor", *arguments]
    return subprocess.run(
        program, env={**inherited, **environment}, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_a_server_that_never_answers(home):
    """It takes connections, and the kernel keeps them: as silent as a server can be."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        hosts = {"BIGQUERY_EMULATOR_HOST": f"http://{address}", "STORAGE_EMULATOR_HOST": f"http://{address}"}
        place = {**home.local, **hosts, "BIGQUERY_STORAGE_EMULATOR_HOST": address}
        ended = doctor(place, "--json", "--timeout", "3")
    content = json.loads(ended.stdout)
    assert (ended.returncode, content["status"], content["exit_code"]) == (3, "unreachable", 3), ended.stderr
    checks = {item["check"]: item for item in content["checks"]}
    assert checks["reach"]["found"] == "It did not end within 3 s; what is missing here was not looked at."
    assert checks["pipelines"]["found"] == "BigQuery and Cloud Storage cannot be asked; see reach"
    assert checks["variables"]["status"] == "ok"


def test_servers_that_do_not_run(home):
    with socket.create_server(("127.0.0.1", 0)) as once:
        address = f"127.0.0.1:{once.getsockname()[1]}"
    place = {**home.local, "BIGQUERY_EMULATOR_HOST": f"http://{address}"}
    found = wrong(home.look("reach", environment=place))
    text = f"{address} did not answer: Failed to establish a new connection: [Errno 111] Connection refused."
    assert found == {"BigQuery": (UNREACHABLE, text, "Start the local servers: nightscore local up.")}


def test_what_the_terminal_shows(home):
    place = {**home.local, "NIGHTSCORE_BUKCET": "x", "NIGHTSCORE_MLFLOW_TRACKING_URI": "http://ada:secret@mlflow"}
    ended = doctor(place, "--only", "settings")
    assert ended.returncode == 0, ended.stderr
    assert "NIGHTSCORE_BUKCET" in ended.stdout
    assert "→ Did you mean NIGHTSCORE_BUCKET? Rename it." in ended.stdout
    assert ended.stdout.rstrip().splitlines()[-1] == "2 ok, 1 warning"
    assert "secret" not in ended.stdout + ended.stderr
    assert doctor(place, "--only", "settings", "--strict").returncode == 2


def test_settings_that_cannot_be_read(home):
    ended = doctor({"NIGHTSCORE_HOME": str(home.folder), "NIGHTSCORE_PROJECT": "local"}, "--json")
    content = json.loads(ended.stdout)
    assert ended.returncode == 2
    faults = [item for item in content["checks"] if item["status"] == "fault"]
    assert [(item["family"], item["fix"]) for item in faults] == [
        ("settings", "Set NIGHTSCORE_BUCKET where this process gets its environment from.")
    ]
    assert {item["found"] for item in content["checks"] if item["family"] == "bucket"} == {
        "the settings cannot be read; see settings"
    }


def test_a_family_that_does_not_exist(home):
    ended = doctor(home.local, "--only", "buckets")
    assert ended.returncode == 2
    assert "There is no family 'buckets'. Did you mean `bucket`?" in ended.stderr
