"""Reading the environment: what is required, what is malformed, and which of two sources wins."""

from pathlib import Path

import pytest

from nightscore import settings as module
from nightscore.settings import SettingError, Settings, pipelines_dir, project_root, read_settings

REQUIRED = {"NIGHTSCORE_PROJECT": "my-project", "NIGHTSCORE_BUCKET": "my-bucket"}
LOCAL = {
    "BIGQUERY_EMULATOR_HOST": "http://localhost:9050",
    "BIGQUERY_STORAGE_EMULATOR_HOST": "localhost:9060",
    "STORAGE_EMULATOR_HOST": "http://localhost:4443",
}


def test_two_variables_are_enough() -> None:
    found = read_settings(REQUIRED)
    assert found == Settings(project="my-project", bucket="my-bucket")
    assert (found.location, found.staging_dataset, found.operations_dataset) == (
        "US",
        "nightscore_staging",
        "nightscore_operations",
    )
    assert found.pipelines_dir == Path("dags/pipelines")
    assert not found.is_local


def test_a_service_account_to_act_as() -> None:
    account = "scorer@my-project.iam.gserviceaccount.com"
    assert read_settings({**REQUIRED, "NIGHTSCORE_SERVICE_ACCOUNT": account}).service_account == account
    assert read_settings({**REQUIRED, "NIGHTSCORE_SERVICE_ACCOUNT": ""}).service_account is None
    with pytest.raises(SettingError, match="It is a service account's e-mail address"):
        read_settings({**REQUIRED, "NIGHTSCORE_SERVICE_ACCOUNT": "scorer"})
    with pytest.raises(SettingError, match="Local servers know no service accounts, and BIGQUERY_EMULATOR_HOST names"):
        read_settings({**REQUIRED, **LOCAL, "NIGHTSCORE_SERVICE_ACCOUNT": account})


def test_every_variable_is_read() -> None:
    found = read_settings(
        {
            **REQUIRED,
            **LOCAL,
            "NIGHTSCORE_LOCATION": "europe-west4",
            "NIGHTSCORE_STAGING_DATASET": "s",
            "NIGHTSCORE_OPERATIONS_DATASET": "o",
            "NIGHTSCORE_PIPELINES_DIR": "/pipelines",
            "NIGHTSCORE_PRICE_PER_TIB": "7.82",
            "NIGHTSCORE_CURRENCY": "EUR",
            "NIGHTSCORE_VERTEX_LOCATION": "europe-west4",
            "NIGHTSCORE_EVENTS_LOG": "nightscore",
            "LOGGING_EMULATOR_HOST": "http://localhost:4444",
        }
    )
    assert found == Settings(
        project="my-project",
        bucket="my-bucket",
        location="europe-west4",
        staging_dataset="s",
        operations_dataset="o",
        pipelines_dir=Path("/pipelines"),
        price_per_tib=7.82,
        currency="EUR",
        vertex_location="europe-west4",
        events_log="nightscore",
        logging_host="http://localhost:4444",
        bigquery_host="http://localhost:9050",
        bigquery_storage_host="localhost:9060",
        storage_host="http://localhost:4443",
    )
    assert found.is_local


def test_mlflow_s_own_variable_counts_where_ours_is_not_set() -> None:
    theirs = {**REQUIRED, "MLFLOW_TRACKING_URI": "http://ada:secret@mlflow:5000"}
    assert read_settings(theirs).mlflow_tracking_uri == "http://ada:secret@mlflow:5000"
    ours = {**theirs, "NIGHTSCORE_MLFLOW_TRACKING_URI": "https://mlflow.example"}
    assert read_settings(ours).mlflow_tracking_uri == "https://mlflow.example"
    assert read_settings(REQUIRED).mlflow_tracking_uri is None
    assert "secret" not in repr(read_settings(theirs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"NIGHTSCORE_PROJECT": ""},
            (
                "The environment variable NIGHTSCORE_PROJECT is not set. It is a Google Cloud project id. Set it, or "
                "start the local servers with `nightscore local up`."
            ),
        ),
        (
            {"NIGHTSCORE_BUCKET": ""},
            (
                "The environment variable NIGHTSCORE_BUCKET is not set. It is a Cloud Storage bucket's name, without "
                "gs://. Set it, or start the local servers with `nightscore local up`."
            ),
        ),
        (
            {"NIGHTSCORE_BUCKET": "gs://my-bucket"},
            (
                "The environment variable NIGHTSCORE_BUCKET is 'gs://my-bucket'. It is a Cloud Storage bucket's name, "
                "without gs://."
            ),
        ),
        (
            {"NIGHTSCORE_PROJECT": "my-project`; DROP"},
            "The environment variable NIGHTSCORE_PROJECT is 'my-project`; DROP'. It is a Google Cloud project id.",
        ),
        (
            {"NIGHTSCORE_STAGING_DATASET": "a.b"},
            "The environment variable NIGHTSCORE_STAGING_DATASET is 'a.b'. It is a BigQuery dataset's name.",
        ),
        (
            {"NIGHTSCORE_PRICE_PER_TIB": "cheap"},
            (
                "The environment variable NIGHTSCORE_PRICE_PER_TIB is 'cheap'. It is the price of a TiB of on-demand "
                "queries, like 6.25."
            ),
        ),
        (
            {"NIGHTSCORE_EVENTS_LOG": "projects/p/logs/nightscore"},
            (
                "The environment variable NIGHTSCORE_EVENTS_LOG is 'projects/p/logs/nightscore'. It is the name of a "
                "log of Cloud Logging, like nightscore."
            ),
        ),
        (
            {"NIGHTSCORE_LOCATION": "the moon"},
            (
                "The environment variable NIGHTSCORE_LOCATION is 'the moon'. It is a BigQuery location such as US or "
                "europe-west4."
            ),
        ),
        (
            {"BIGQUERY_EMULATOR_HOST": "http://localhost:1"},
            (
                "The environment variable BIGQUERY_STORAGE_EMULATOR_HOST is not set. It is the host:port of the local "
                "storage gRPC service."
            ),
        ),
    ],
)
def test_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({**REQUIRED, **change})
    assert str(caught.value) == message
    assert caught.value.variable in message


def local_file(root: Path) -> None:
    (root / ".nightscore").mkdir()
    lines = ["# written by `nightscore local up`", "", *(f"{k}={v}" for k, v in {**REQUIRED, **LOCAL}.items()), "A=b=c"]
    (root / ".nightscore" / "env").write_text("\n".join(lines) + "\n")


def test_local_servers_need_no_variable(tmp_path: Path) -> None:
    local_file(tmp_path)
    found = read_settings({}, tmp_path)
    assert (found.project, found.bigquery_host) == ("my-project", "http://localhost:9050")
    assert found.pipelines_dir == tmp_path / "dags" / "pipelines"


def test_one_variable_switches_the_local_servers_off(tmp_path: Path) -> None:
    local_file(tmp_path)
    assert read_settings({}, tmp_path).is_local
    assert not read_settings(REQUIRED, tmp_path).is_local
    with pytest.raises(SettingError, match="NIGHTSCORE_PROJECT is not set"):
        read_settings({"NIGHTSCORE_BUCKET": "other"}, tmp_path)


def test_a_variable_that_the_file_does_not_hold_goes_with_it(tmp_path: Path) -> None:
    local_file(tmp_path)
    found = read_settings({"NIGHTSCORE_LOCATION": "EU"}, tmp_path)
    assert (found.is_local, found.location) == (True, "EU")


def test_the_root_is_the_nearest_folder_with_dags(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "dags").mkdir()
    assert project_root(deep) == tmp_path
    (tmp_path / "a" / ".nightscore").mkdir()
    assert project_root(deep) == tmp_path / "a"


def test_the_root_without_dags_is_where_one_stands(tmp_path: Path) -> None:
    assert project_root(tmp_path) == tmp_path


def test_the_environment_names_root_and_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSCORE_HOME", str(tmp_path))
    assert project_root() == tmp_path
    assert pipelines_dir() == tmp_path / "dags" / "pipelines"
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", "/elsewhere")
    assert pipelines_dir() == Path("/elsewhere")


def test_a_process_reads_its_settings_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.settings.cache_clear()
    monkeypatch.setenv("NIGHTSCORE_HOME", str(tmp_path))
    local_file(tmp_path)
    try:
        first = module.settings()
        monkeypatch.setenv("NIGHTSCORE_BUCKET", "other")
        assert module.settings() is first
    finally:
        module.settings.cache_clear()
