"""Models of Vertex AI, against recorded answers: the client is Google's, and so is the form of what it is told.

The answers are written after the public reference of `projects.locations.models` (list, get, listVersions), and served
over HTTP. Google itself is not asked. The files lie in the local Cloud Storage.
"""

import functools
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from google.api_core.exceptions import Conflict
from google.auth.credentials import AnonymousCredentials
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

from nightscore.arguments import parse_model
from nightscore.clients import build_storage
from nightscore.registry.importing import import_model
from nightscore.registry.signature import SampleError
from nightscore.registry.sources.source import RefusedModelError, SourceAccessError, SourceUnavailableError
from nightscore.registry.sources.vertex import VertexSource
from nightscore.registry.store import ModelNotFoundError, Registry

RESPONSES = Path(__file__).parent / "responses"
MODELS = "/v1/projects/my-project/locations/europe-west4/models"
FRAME = pd.DataFrame({"age": np.arange(20, 60), "limit_bal": np.linspace(0, 1, 40)})
FITTED = LogisticRegression(max_iter=500).fit(FRAME, (FRAME["age"] > 40).astype(int))

# Path and filter of a request → the recorded answer.
ANSWERS = {
    (MODELS, 'display_name="Card Default"'): "models_of_that_name",
    (MODELS, 'display_name="Card Defalt"'): "no_models",
    (MODELS, 'display_name="Twice"'): "two_models_of_that_name",
    (MODELS, ""): "models",
    (f"{MODELS}/4711@champion", ""): "model",
    (f"{MODELS}/4711@7", ""): "model",
    (f"{MODELS}/4711@6", ""): "pickled",
    (f"{MODELS}/4711:listVersions", ""): "versions",
    (f"{MODELS}/503@champion", ""): "unavailable",
    (f"{MODELS}/403@champion", ""): "denied",
}


class _Recorded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        [wanted] = parse_qs(asked.query).get("filter", [""])
        name = ANSWERS.get((unquote(asked.path), wanted), "not_found")
        data = (RESPONSES / f"{name}.json").read_bytes()
        self.send_response(json.loads(data).get("error", {}).get("code", 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the recorded answers are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Recorded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def client_of(address: str) -> Any:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
    from google.cloud.aiplatform_v1.services.model_service.transports import ModelServiceRestTransport

    transport = ModelServiceRestTransport(host=address, credentials=AnonymousCredentials(), url_scheme="http")
    return ModelServiceClient(transport=transport)


@pytest.fixture
def registry(bench: Any, settings: Any, address: str) -> Registry:
    storage = functools.partial(build_storage, settings)
    source = VertexSource("my-project", "europe-west4", functools.partial(client_of, address), storage)
    return Registry(bench.services.bucket, sources={"vertex": source})


@pytest.fixture
def artifacts(settings: Any, tmp_path: Path) -> Iterator[Any]:
    """The bucket of the models' files, with those of version 7."""
    client = build_storage(settings)
    try:
        bucket = client.create_bucket("vertex-models")
    except Conflict:
        bucket = client.bucket("vertex-models")
    skops_io.dump(FITTED, tmp_path / "model.skops")
    parquet.write_table(pa.Table.from_pandas(FRAME, preserve_index=False), tmp_path / "sample.parquet")
    for name in ("model.skops", "sample.parquet"):
        bucket.blob(f"card_default/7/{name}").upload_from_filename(tmp_path / name)
    bucket.blob("card_default/7/checkpoints/model.onnx").upload_from_string(b"deeper, and not the model")
    yield bucket
    for blob in client.list_blobs("vertex-models"):
        blob.delete()


def test_an_alias_is_imported_once_and_scores_as_it_did_there(registry: Registry, artifacts: Any, bench: Any) -> None:
    reference = parse_model("vertex:Card Default@champion")
    version = import_model(registry, reference, name=bench.name, alias="champion")
    source = version.manifest.source
    assert source is not None
    assert source.model_dump() == {
        "kind": "vertex",
        "server": "projects/my-project/locations/europe-west4",
        "name": "Card Default",
        "version": 7,
        "run_id": "",
        "uri": "gs://vertex-models/card_default/7",
        "registered_at": "2026-11-12T09:14:03.412345+00:00",
        "alias": "champion",
        "tags": {"team": "risk-ml"},
    }
    model = registry.load(registry.resolve(parse_model(f"{bench.name}@champion")))
    np.testing.assert_array_equal(
        model.predict(pa.RecordBatch.from_pandas(FRAME, preserve_index=False)), FITTED.predict_proba(FRAME)
    )
    assert import_model(registry, reference, name=bench.name) == version

    planned = registry.resolve(reference)
    assert planned.manifest.name == "card_default"
    assert registry.resolve(parse_model("vertex:Card Default@7")) == planned


def test_a_model_by_its_id(registry: Registry, artifacts: Any) -> None:
    assert registry.sources["vertex"].resolve(parse_model("vertex:4711@7")).version == 7


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "Card Default@champoin",
            "The model Card Default in Vertex AI has no alias 'champoin'. Did you mean `champion`?",
        ),
        ("4711@8", "The model 4711 in Vertex AI has no version 8; it has 6, 7."),
        ("4713@8", "Vertex AI has no model '4713' in projects/my-project/locations/europe-west4."),
        (
            "Card Defalt@champion",
            (
                "Vertex AI has no model 'Card Defalt' in projects/my-project/locations/europe-west4. "
                "Did you mean `Card Default`?"
            ),
        ),
        (
            "Twice@champion",
            (
                "Vertex AI has 2 models called 'Twice' in projects/my-project/locations/europe-west4; write the id of "
                "one, like vertex:4711@champion. Ids: 4711, 4712."
            ),
        ),
    ],
)
def test_what_is_not_there_names_what_is_near(registry: Registry, asked: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        registry.resolve(parse_model(f"vertex:{asked}"))
    assert str(caught.value) == message


def test_pickles_and_binary_boosters_are_refused(registry: Registry, artifacts: Any) -> None:
    artifacts.blob("card_default/6/model.pkl").upload_from_string(pickle.dumps(FITTED))
    artifacts.blob("card_default/6/model.bst").upload_from_string(b"binary")
    with pytest.raises(RefusedModelError) as caught:
        registry.resolve(parse_model("vertex:4711@6"))
    message = str(caught.value)
    assert message.startswith(
        "vertex:4711@6: gs://vertex-models/card_default/6/ holds no model that can be imported, but model.bst, "
        "model.pkl; exactly one is needed. A pickle, or a binary booster, is refused. Nothing was downloaded."
    )
    assert "model.skops (`skops.io.dump`)" in message


def test_without_a_sample_the_command_says_what_to_do(registry: Registry, artifacts: Any) -> None:
    artifacts.blob("card_default/7/sample.parquet").delete()
    with pytest.raises(SampleError, match=r"no sample.parquet or sample.csv beside model.skops; .*--sample FILE"):
        import_model(registry, parse_model("vertex:4711@7"))


def test_a_failure_can_pass_and_a_refusal_cannot(registry: Registry) -> None:
    with pytest.raises(SourceUnavailableError, match="Vertex AI failed while looking up vertex:503@champion: 503"):
        registry.resolve(parse_model("vertex:503@champion"))
    with pytest.raises(SourceAccessError, match=r"Vertex AI refused a request .*aiplatform.models.get"):
        registry.resolve(parse_model("vertex:403@champion"))


def test_an_unreachable_service_can_be_reached_later(settings: Any, bench: Any) -> None:
    storage = functools.partial(build_storage, settings)
    source = VertexSource("my-project", "europe-west4", functools.partial(client_of, "127.0.0.1:9"), storage)
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        Registry(bench.services.bucket, sources={"vertex": source}).resolve(parse_model("vertex:4711@7"))
