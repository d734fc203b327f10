"""Shards through the engine: connections that break, challengers that fail, receipts that are not the run's own."""

import datetime as dt
import gc
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from pyarrow import parquet
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nightscore.objects import to_json
from nightscore.pipeline import run_stage, start
from nightscore.run import Run
from nightscore.scoring import reading
from nightscore.scoring.checksum import Checksum, checksum
from nightscore.scoring.reading import SessionLostError, iter_batches
from nightscore.scoring.score import NonFiniteError
from nightscore.scoring.shard import ReceiptError, ShardError, score_rows, score_shard
from nightscore.snapshot import freeze
from nightscore.warehouse import StatementError, Warehouse, WarehouseError

ROWS = 150_000
NAMES = [f"x{number}" for number in range(8)]
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
READ_ROWS = "ReadRows"


def table(rows: int, seed: int = 0) -> pa.Table:
    values = np.random.default_rng(seed).normal(size=(len(NAMES), rows))
    columns = {name: values[number] for number, name in enumerate(NAMES)}
    day = pa.array([dt.date(2026, 11, 19)] * rows, pa.date32())
    return pa.table({"id": np.arange(rows) * 3, "snapshot_date": day, **columns})


@pytest.fixture
def night(bench):
    """A bench with a boosting champion and a few accounts."""
    bench.table = table(3_000)
    bench.write("features", bench.table)
    bench.inputs = bench.table.select(NAMES)
    bench.frame = bench.inputs.to_pandas()
    bench.outcome = bench.frame.x0 + bench.frame.x1 > 0
    bench.champion = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(bench.frame, bench.outcome)
    bench.register(bench.champion, bench.inputs.slice(0, 500))
    return bench


def frozen(bench: Any, **changes: Any) -> Run:
    """Return a run whose rows are frozen."""
    run = start(bench.spec(limits={"shards": 1}, **changes), bench.day, bench.services)
    run_stage(run, freeze)
    run.require_lease().release()
    return run


def part_of(run: Run, uri: str) -> pa.Table:
    """Return a part, ordered."""
    stored = run.bucket.read(uri.removeprefix(f"gs://{run.bucket.name}/"))
    assert stored is not None
    return parquet.read_table(io.BytesIO(stored.data)).sort_by("id")


def parts(run: Run) -> list[str]:
    return list(run.bucket.iter_names(f"{run.records.prefix}shards/", match_glob="**/*.parquet"))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("nightscore-")]
    assert [name for name in left if "lease" not in name] == []


def with_challengers(bench: Any, *estimators: Any) -> Run:
    for number, estimator in enumerate(estimators):
        bench.register(estimator, bench.inputs.slice(0, 500), alias=f"c{number}")
    aliases = [f"c{number}" for number in range(len(estimators))]
    return frozen(bench, model={"name": bench.name, "challengers": aliases})


def test_challengers_score_the_same_rows_into_parts_of_their_own(night):
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(night.frame, night.outcome)
    trees = HistGradientBoostingClassifier(max_iter=3, random_state=1).fit(night.frame[NAMES[::-1]], night.outcome)
    run = with_challengers(night, linear, trees)
    receipt = score_shard(run, 0)
    first, second = f"{night.name}/2", f"{night.name}/3"
    assert list(receipt["challengers"]) == [first, second]
    expected = {
        first: linear.predict_proba(night.frame)[:, 1],
        second: trees.predict_proba(night.frame[NAMES[::-1]])[:, 1],
    }
    for label, found in receipt["challengers"].items():
        scored = part_of(run, found["part"])
        assert found["part"] == receipt["part"].replace(".parquet", f"-{label.split('/')[1]}.parquet")
        assert scored["id"].to_pylist() == night.table["id"].to_pylist()
        assert set(scored["model_version"].to_pylist()) == {label}
        np.testing.assert_allclose(scored["score"].to_numpy(), expected[label], rtol=0, atol=1e-12)
        assert found["rows"] == found["figures"]["rows"] == 3_000
        assert sum(found["figures"]["histogram"]) == 3_000
    champion = part_of(run, receipt["part"])
    assert champion.schema == scored.schema
    assert champion["score"].to_pylist() == night.champion.predict_proba(night.frame)[:, 1].tolist()
    sums = {receipt["checksum"], *(found["checksum"] for found in receipt["challengers"].values())}
    assert len(sums) == 3


def test_the_checksum_is_that_of_the_rows(night):
    run = frozen(night)
    receipt = score_shard(run, 0)
    batches = list(iter_batches(run, 0))
    assert batches[0].schema.names == ["id", *NAMES, "_key_hash"]
    expected = Checksum.zero()
    for batch in batches:
        scores = night.champion.predict_proba(batch.select(NAMES).to_pandas())[:, 1]
        expected += checksum(batch["_key_hash"].to_numpy(), pa.table({"score": scores}), "binary")
    assert receipt["checksum"] == str(expected)
    assert expected.rows == 3_000


@pytest.fixture
def tested_on_five(monkeypatch):
    """Estimators are tried with at most 500 rows when they are registered; these fail with more."""

    def install(kind, method, behave):
        original = getattr(kind, method)
        monkeypatch.setattr(kind, method, lambda self, x: behave(x) if len(x) > 500 else original(self, x))

    return install


def test_a_challenger_that_raises_is_reported_and_the_champion_goes_on(night, tested_on_five):
    def quote(features):
        raise ValueError(f"could not convert string to float: 'Jane Doe', row 4711 holds {features[0, 0]}")

    linear = LogisticRegression().fit(night.frame, night.outcome)
    run = with_challengers(night, linear)
    tested_on_five(LogisticRegression, "predict_proba", quote)
    receipt = score_shard(run, 0)
    [(label, found)] = receipt["challengers"].items()
    words = "could not convert string to float: …, row … holds …"
    assert (label, found) == (f"{night.name}/2", {"error": f"It raised ValueError: {words}"})
    assert receipt["rows"] == 3_000
    assert parts(run) == [receipt["part"].removeprefix(f"gs://{run.bucket.name}/")]


def test_a_challenger_that_fails_half_way_leaves_no_part(night, tested_on_five, monkeypatch):
    from nightscore.scoring import engine

    monkeypatch.setattr(engine, "MOST_ROWS", 600)
    monkeypatch.setattr(engine, "LEAST_ROWS", 600)
    linear = LogisticRegression().fit(night.frame, night.outcome)
    run = with_challengers(night, linear)
    calls = []

    def tire(features):
        calls.append(len(features))
        share = np.full(len(features), np.nan if len(calls) > 2 else 0.5)
        return np.column_stack([1 - share, share])

    tested_on_five(LogisticRegression, "predict_proba", tire)
    receipt = score_shard(run, 0)
    gc.collect()
    assert receipt["challengers"] == {
        f"{night.name}/2": {"error": "It predicted NaN or infinity for 600 of 600 rows of a batch."}
    }
    assert len(parts(run)) == 1
    assert part_of(run, receipt["part"]).num_rows == 3_000


def test_a_challenger_that_cannot_be_loaded_is_reported(night):
    linear = LogisticRegression().fit(night.frame, night.outcome)
    run = with_challengers(night, linear)
    path = f"registry/models/{night.name}/versions/2/model.skops"
    stored = run.bucket.read(path)
    assert run.bucket.swap(path, b"something else", stored.generation)
    receipt = score_shard(run, 0)
    assert "was changed after it was registered" in receipt["challengers"][f"{night.name}/2"]["error"]
    assert receipt["rows"] == 3_000


def test_a_champion_that_raises_fails_the_shard_and_leaves_nothing(night, tested_on_five):
    def fail(features):
        raise ValueError("no")

    linear = LinearRegression().fit(night.frame, night.outcome)
    night.register(linear, night.inputs.slice(0, 500))
    run = frozen(night)
    tested_on_five(LinearRegression, "predict", fail)
    with pytest.raises(ShardError, match=f"the model {night.name}/2 failed with ValueError: no"):
        score_shard(run, 0)
    gc.collect()
    assert parts(run) == []
    assert run.records.read("shards/part-00000") is None


def test_scoring_again_writes_elsewhere_and_no_receipt(night):
    run = frozen(night)
    receipt = score_shard(run, 0)
    again = score_rows(run, 0, f"{run.records.prefix}replays/one/")
    assert again["checksum"] == receipt["checksum"]
    assert again["part"].startswith(f"{run.records.uri}replays/one/part-00000-")
    assert part_of(run, again["part"]).equals(part_of(run, receipt["part"]))
    assert list(run.bucket.iter_names(f"{run.records.prefix}replays/", match_glob="**/*.json")) == []


def test_a_part_expires_with_its_run(night):
    run = frozen(night)
    receipt = score_shard(run, 0)
    blob = run.bucket._bucket.get_blob(receipt["part"].removeprefix(f"gs://{run.bucket.name}/"))
    assert blob.custom_time == run.plan.expires


@pytest.mark.parametrize(("field", "what"), [("plan_digest", "plan"), ("model_digest", "model")])
def test_a_receipt_of_something_else_is_refused(night, field, what):
    run = frozen(night)
    receipt = score_shard(run, 0)
    assert {**score_shard(run, 0)} == {**receipt, "reused": True}
    path = f"{run.records.prefix}shards/part-00000.json"
    stored = run.bucket.read(path)
    assert run.bucket.swap(path, to_json({**json.loads(stored.data), field: "0" * 64}), stored.generation)
    with pytest.raises(ReceiptError, match=f"the receipt of shard 0 in .* is of another {what} than the run"):
        score_shard(run, 0)


def test_predictions_that_are_not_finite_are_for_the_caller_to_record(night, tested_on_five):
    linear = LinearRegression().fit(night.frame, night.outcome)
    night.register(linear, night.inputs.slice(0, 500))
    run = frozen(night)
    tested_on_five(LinearRegression, "predict", lambda features: np.full(len(features), np.inf))
    with pytest.raises(NonFiniteError):
        score_rows(run, 0, f"{run.records.prefix}replays/one/")
    assert run.records.read("score") is None


@dataclass
class Fault:
    """What happens to one call of ReadRows, before its message number `after`."""

    code: grpc.StatusCode | None = None
    text: str = ""
    after: int = 1
    seconds: float = 0.0

    def strike(self, context: grpc.ServicerContext, over: threading.Event) -> None:
        """Fail, stay silent, or return, which ends the stream early."""
        if self.seconds:
            over.wait(self.seconds)
        if self.code is not None:
            context.abort(self.code, self.text)


class Relay(grpc.GenericRpcHandler):
    """A Storage Read server that passes everything on to the real one, and breaks where it is told to."""

    def __init__(self, address: str) -> None:
        self.offsets: list[int] = []
        self.sessions = 0
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.over = threading.Event()
        self._upstream = grpc.insecure_channel(address, options=UNLIMITED)
        self._server = grpc.server(ThreadPoolExecutor(8), options=UNLIMITED)
        self._server.add_generic_rpc_handlers([self])
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED)
        self.client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=self._channel))

    def close(self) -> None:
        """Stop serving."""
        self.over.set()
        self._channel.close()
        self._server.stop(0).wait()
        self._upstream.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return what handles a call."""
        if handler_call_details.method.endswith(READ_ROWS):
            return grpc.unary_stream_rpc_method_handler(self._read)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._open(handler_call_details.method, request)
        )

    def _open(self, method: str, request: bytes) -> bytes:
        self.sessions += 1
        return self._upstream.unary_unary(method)(request)

    def _read(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.offsets.append(types.ReadRowsRequest.deserialize(request).offset)
        fault = self.faults.pop(0) if self.faults else self.always
        messages = self._upstream.unary_stream("/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows")(request)
        for number, message in enumerate(messages):
            if fault is not None and number == fault.after:
                fault.strike(context, self.over)
                messages.cancel()
                return
            yield message


@pytest.fixture(scope="module")
def long(new_bench, tmp_path_factory):
    """A run whose only shard is many messages long."""
    bench = new_bench(tmp_path_factory.mktemp("long"))
    rows = table(ROWS)
    bench.write("features", rows)
    frame = rows.select(NAMES).slice(0, 2_000).to_pandas()
    bench.register(LogisticRegression().fit(frame, frame.x0 > 0), rows.select(NAMES).slice(0, 500))
    return frozen(bench)


@pytest.fixture
def relay(settings, monkeypatch) -> Iterator[Relay]:
    monkeypatch.setattr(reading, "PAUSE", 0.01)
    relay = Relay(settings.bigquery_storage_host)
    yield relay
    relay.close()


def through(run: Run, relay: Relay) -> Run:
    """Return the run with a Storage Read client that is connected to the relay."""
    warehouse = Warehouse(run.warehouse.config, run.warehouse.client, lambda: relay.client)
    return replace(run, services=replace(run.services, warehouse=warehouse))


def ids(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [value for batch in batches for value in batch["id"].to_pylist()]


ALL = [number * 3 for number in range(ROWS)]

PASSING = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
]


@pytest.mark.parametrize("code", PASSING, ids=lambda code: code.name)
def test_a_broken_stream_goes_on_at_its_offset(long, relay, code):
    relay.faults = [Fault(code, "Received RST_STREAM with error code 2", after=2), Fault(code, "again", after=0)]
    assert sorted(ids(iter_batches(through(long, relay), 0))) == ALL
    assert relay.offsets[0] == 0 < relay.offsets[1] == relay.offsets[2]
    assert len(relay.offsets) == 3


def test_progress_is_worth_any_number_of_new_calls(long, relay):
    relay.always = Fault(grpc.StatusCode.UNAVAILABLE, "one message a call", after=1)
    found = ids(iter_batches(through(long, relay), 0))
    assert sorted(found) == ALL
    assert len(relay.offsets) > reading.MOST_FAILURES
    assert relay.offsets == sorted(set(relay.offsets))


def test_without_progress_it_gives_up(long, relay):
    relay.always = Fault(grpc.StatusCode.UNAVAILABLE, "never", after=0)
    with pytest.raises(WarehouseError, match=r"BigQuery failed while reading shard 0 of \w+: never"):
        ids(iter_batches(through(long, relay), 0))
    assert relay.offsets == [0] * reading.MOST_FAILURES


@pytest.mark.parametrize("faults", [[], [Fault(grpc.StatusCode.UNAVAILABLE, "one of them", after=2)]], ids=len)
def test_with_more_processors_several_streams_are_read_at_once(long, relay, monkeypatch, faults):
    monkeypatch.setattr(reading, "usable_cpus", lambda: 8)
    relay.faults = [*faults]
    assert sorted(ids(iter_batches(through(long, relay), 0))) == ALL
    assert relay.offsets[:2] == [0, 0]
    assert len([offset for offset in relay.offsets if offset]) == len(faults)


@pytest.mark.parametrize("after", [0, 2])
def test_a_stream_that_stays_silent_is_called_again(long, relay, monkeypatch, after):
    monkeypatch.setattr(reading, "SILENCE", 1.0)
    relay.faults = [Fault(seconds=60, after=after)]
    assert sorted(ids(iter_batches(through(long, relay), 0))) == ALL
    assert len(relay.offsets) == 2


LOST = [
    Fault(grpc.StatusCode.NOT_FOUND, "there is no such session"),
    Fault(grpc.StatusCode.FAILED_PRECONDITION, "there was an error: session expired at 2026-11-20T08:00:00+00:00"),
]


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.code.name)
def test_a_session_that_is_gone_is_said_to_be(long, relay, fault):
    relay.faults = [fault]
    with pytest.raises(SessionLostError, match="session"):
        ids(iter_batches(through(long, relay), 0))


def test_a_refusal_is_no_passing_error(long, relay):
    relay.faults = [Fault(grpc.StatusCode.PERMISSION_DENIED, "bigquery.readsessions.getData is missing")]
    with pytest.raises(StatementError, match=r"bigquery\.readsessions\.getData is missing"):
        ids(iter_batches(through(long, relay), 0))
    assert len(relay.offsets) == 1


@pytest.mark.parametrize(
    "fault", [*LOST, Fault(after=2)], ids=["session not found", "session expired", "stream ends early"]
)
def test_a_shard_is_scored_from_its_beginning_in_another_session(long, relay, fault):
    relay.faults = [fault]
    expected = score_rows(long, 0, f"{long.records.prefix}tests/")
    found = score_through(long, relay)
    assert found["attempts"] == 2
    assert relay.sessions == 2
    assert found["checksum"] == expected["checksum"]
    assert found["rows"] == ROWS


def score_through(run: Run, relay: Relay) -> Any:
    """Score the shard, whether or not another test has."""
    path = f"{run.records.prefix}shards/part-00000.json"
    stored = run.bucket.read(path)
    if stored is not None:
        run.bucket.delete(path, stored.generation)
    return score_shard(through(run, relay), 0)


def test_an_attempt_that_always_fails_ends_the_shard(long, relay):
    relay.always = Fault(grpc.StatusCode.NOT_FOUND, "there is no such session", after=3)
    with pytest.raises(SessionLostError):
        score_through(long, relay)
    assert relay.sessions == 3


def test_reading_can_be_given_up_while_the_server_is_silent(long, relay):
    relay.faults = [Fault(seconds=60, after=1)]
    rows = iter_batches(through(long, relay), 0)
    first = next(rows)
    began = time.monotonic()
    rows.close()
    assert time.monotonic() - began < 5
    assert list(rows) == []
    assert first.num_rows > 0
