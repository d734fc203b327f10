"""What needs no server of the registries that models are imported from."""

import sys

import pytest

from nightscore.clients import CredentialsError, build_vertex
from nightscore.errors import ConfigurationError
from nightscore.names import MODEL_NAME, SOURCES
from nightscore.registry.importing import SETTINGS, local_name
from nightscore.registry.manifest import Origin
from nightscore.registry.sources.configured import configured_sources
from nightscore.registry.sources.mlflow import MlflowSource
from nightscore.registry.sources.vertex import VertexSource
from nightscore.settings import Settings
from nightscore.spec import ModelReference

CONFIG = Settings(project="my-project", bucket="my-bucket", vertex_location="europe-west4")
ORIGIN = Origin(
    kind="mlflow",
    server="https://mlflow.example",
    name="credit_default",
    version=7,
    run_id="a1",
    uri="mlflow-artifacts:/0/a1/artifacts/model",
    registered_at="2026-11-12T09:14:03+00:00",
)


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nightscore\[mlflow\]'"):
        MlflowSource("http://127.0.0.1:9").resolve(ModelReference(source="mlflow", name="m"))


def test_without_the_client_of_vertex_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1.services.model_service", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nightscore\[vertex\]'"):
        build_vertex(CONFIG)


def test_without_credentials_a_retry_cannot_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    source = VertexSource("my-project", "europe-west4", lambda: build_vertex(CONFIG), lambda: None)
    with pytest.raises(CredentialsError, match=r"gcloud auth application-default login.*nowhere"):
        source.resolve(ModelReference(source="vertex", name="4711"))


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("https://ada:secret@mlflow.example:5000/base/?token=x", "https://mlflow.example:5000/base"),
        ("http://token@mlflow.example", "http://mlflow.example"),
        ("http://mlflow.example/", "http://mlflow.example"),
        ("postgresql://ada:s@cret@db/mlflow", "postgresql://db/mlflow"),
        ("databricks", "databricks"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_an_address_is_kept_without_credentials(uri: str, server: str) -> None:
    assert MlflowSource(uri).server == server


def test_what_is_no_address_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = MlflowSource("http://ada:secret@[bad").server
    assert str(caught.value) == "MLflow's tracking URI is not an address like https://mlflow.example."


def test_only_what_the_settings_name_is_asked() -> None:
    assert configured_sources(Settings(project="my-project", bucket="my-bucket")) == {}
    found = configured_sources(
        Settings(project="my-project", bucket="b", mlflow_tracking_uri="http://m", vertex_location="europe-west4")
    )
    assert {kind: source.server for kind, source in found.items()} == {
        "mlflow": "http://m",
        "vertex": "projects/my-project/locations/europe-west4",
    }
    assert tuple(found) == tuple(SETTINGS) == SOURCES


def test_a_registration_is_told_by_all_but_its_alias_and_tags() -> None:
    assert ORIGIN.is_same(ORIGIN.model_copy(update={"alias": "champion", "tags": {"team": "risk"}}))
    for change in ({"version": 8}, {"run_id": "b2"}, {"registered_at": "2026-11-13T00:00:00+00:00"}, {"uri": "x"}):
        assert not ORIGIN.is_same(ORIGIN.model_copy(update=change))


@pytest.mark.parametrize("name", ["credit_default", "Credit Default", "4711", "a" * 200, "Ä", "main.risk.Credit"])
def test_what_a_model_is_called_here_is_a_name(name: str) -> None:
    import re

    assert re.fullmatch(MODEL_NAME, local_name(name))
