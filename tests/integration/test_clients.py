"""Whose token arrives at Google: that of the process, or that of the service account it acts as."""

import os
import subprocess
import sys

import pytest

from cloud import OWN, Cloud

SCORER = "scorer@my-project.iam.gserviceaccount.com"
ASK = """
import os, sys
from google.cloud.bigquery_storage_v1 import types
from nightscore.clients import build_bigquery, build_bigquery_storage, build_storage, build_vertex
from nightscore.settings import settings

config = settings()
next(iter(build_bigquery(config).list_datasets()), None)
next(iter(build_storage(config).list_blobs(config.bucket)), None)
session = types.ReadSession(table="projects/local/datasets/none/tables/none", data_format="ARROW")
calls = [
    lambda: build_bigquery_storage(config).create_read_session(parent="projects/local", read_session=session),
    lambda: next(iter(build_vertex(config).list_models(parent="projects/local/locations/europe-west4")), None),
][: int(sys.argv[1])]
for call in calls:
    try:
        call()
    except Exception as error:
        print(type(error).__name__)
"""


@pytest.fixture
def cloud(local_servers, tmp_path):
    made = Cloud(local_servers, tmp_path)
    yield made
    made.close()


def ask(cloud, others=1, **settings):
    """Ask BigQuery and Cloud Storage; of `others`, the Storage Read API is the first and Vertex AI the second."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSCORE", "GOOGLE"))}
    named = {"PROJECT": "local", "BUCKET": "nightscore-local", "VERTEX_LOCATION": "europe-west4", **settings}
    variables = {f"NIGHTSCORE_{name}": value for name, value in named.items()}
    return subprocess.run(
        [sys.executable, "-c", ASK, str(others)],
        env={**environment, **cloud.environment, **variables, "NIGHTSCORE_HOME": str(cloud.folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def who_asked(cloud):
    """Host → whose tokens arrived there."""
    found = {}
    for asked in cloud.asked:
        found.setdefault(asked.host, set()).add(asked.who)
    return found


SERVICES = ("bigquery", "storage", "bigquerystorage", "europe-west4-aiplatform")


def test_every_client_acts_as_the_service_account(cloud):
    cloud.may_act_as.add(SCORER)
    ended = ask(cloud, 2, SERVICE_ACCOUNT=SCORER)
    assert ended.returncode == 0, ended.stderr
    found = who_asked(cloud)
    assert {found[f"{name}.googleapis.com"] == {SCORER} for name in SERVICES} == {True}, found
    acting = [asked for asked in cloud.asked if asked.path.endswith(":generateAccessToken")]
    assert [(asked.who, asked.body["lifetime"], asked.body["scope"]) for asked in acting] == [
        (OWN, "3600s", ["https://www.googleapis.com/auth/cloud-platform"])
    ]


def test_without_the_setting_the_process_acts_itself(cloud):
    ended = ask(cloud)
    assert ended.returncode == 0, ended.stderr
    found = who_asked(cloud)
    assert {found[f"{name}.googleapis.com"] == {OWN} for name in SERVICES[:3]} == {True}, found
    assert [asked for asked in cloud.asked if asked.path.endswith(":generateAccessToken")] == []


def test_who_may_not_act_as_the_account(cloud):
    ended = ask(cloud, SERVICE_ACCOUNT=SCORER)
    assert ended.returncode == 1
    assert "iam.serviceAccounts.getAccessToken" in ended.stderr
