"""One shard: read its frozen rows as Arrow, score them, store the predictions, write the receipt that commits them."""

import datetime as dt
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nightscore.errors import ConfigurationError, shorten
from nightscore.gates.gate import GateStoppedError, gate_record
from nightscore.objects import Json
from nightscore.predictions import columns_of
from nightscore.registry.model import Model
from nightscore.run import Run
from nightscore.scoring.checksum import Checksum, checksum
from nightscore.scoring.score import NonFiniteError, combine, score, summarise
from nightscore.warehouse import WarehouseError, translated

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 65_536


class ShardError(ConfigurationError):
    """The model failed on rows that its signature allows."""


def score_shard(run: Run, shard: int) -> Json:
    """Score one shard and return its receipt; a shard that has one is not scored again.

    The predictions go to an object of this attempt's own, `shards/part-00007-<attempt>.parquet`. The receipt
    `shards/part-00007.json` names it and is created once: of two attempts, the one whose receipt is first has done it.

    Raises:
        ShardError: the model raised an exception.
        WarehouseError: reading broke off; a retry may succeed.
    """
    name = f"shards/part-{shard:05d}"
    done = run.records.read(name)
    if done is not None:
        return {**done, "reused": True}
    opened = time.monotonic()
    pinned = run.plan.model
    model = run.registry.load_pinned(pinned.name, pinned.version, pinned.digest)
    started = time.monotonic()
    part = f"{run.records.prefix}{name}-{uuid.uuid4().hex[:8]}.parquet"
    total = _expected_rows(run, shard)
    summaries: list[dict[str, Any]] = []
    summed = Checksum.zero()
    rows = 0
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        writer: Any = None
        try:
            for batch in iter_batches(run, shard):
                predictions = _scored(run, model, batch)
                summed += checksum(batch.column("_key_hash").to_numpy(), predictions, model.task)
                summaries.append(summarise(predictions, model.task, run.spec.predictions.threshold))
                table = _with_constants(run, model, batch, predictions)
                writer = writer or _open_writer(file, table.schema)
                writer.write_table(table)
                rows += batch.num_rows
                run.progress.shard_advanced(shard, rows, total)
        finally:
            if writer is not None:
                writer.close()
        if rows != total:
            raise WarehouseError(f"reading shard {shard}", f"{rows:,} rows arrived and {total:,} were frozen")
        if rows:
            file.flush()
            run.bucket.upload_new(part, file.name)
    seconds = time.monotonic() - started
    return run.records.write_once(
        name,
        {
            "shard": shard,
            "rows": rows,
            "part": run.bucket.uri(part) if rows else None,
            "checksum": str(summed),
            "model": model.label,
            "model_digest": model.digest,
            "plan_digest": run.plan.digest,
            "figures": combine(summaries),
            "load_seconds": round(started - opened, 3),
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds) if seconds else 0,
        },
    )


def iter_batches(run: Run, shard: int) -> Iterator["pa.RecordBatch"]:
    """Yield a shard's accepted rows through the Storage Read API: the frozen columns without the partition."""
    import pyarrow as pa
    from google.cloud.bigquery_storage_v1 import types

    project, dataset, table = run.snapshot_table.rsplit(".", 2)
    wanted = [*(name for name in run.plan.columns if name != run.spec.features.partition), "_key_hash"]
    with translated(f"reading shard {shard} of {run.spec.name}"):
        session = run.warehouse.reader.create_read_session(
            parent=f"projects/{run.warehouse.config.project}",
            read_session=types.ReadSession(
                table=f"projects/{project}/datasets/{dataset}/tables/{table}",
                data_format=types.DataFormat.ARROW,
                read_options=types.ReadSession.TableReadOptions(
                    selected_fields=wanted, row_restriction=f"_shard = {shard} AND _rejected_by IS NULL"
                ),
            ),
            max_stream_count=1,
        )
        if not session.streams:
            return
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        for message in run.warehouse.reader.read_rows(session.streams[0].name):
            buffer = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
            batch = pa.ipc.read_record_batch(buffer, schema)
            for offset in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(offset, BATCH_ROWS)


def _expected_rows(run: Run, shard: int) -> int:
    frozen = run.records.read("freeze")
    if frozen is None:
        raise ConfigurationError(
            f"{run.spec.name}: the run {run.plan.run_id} was not frozen yet; run it from the start."
        )
    return int(frozen["shard_rows"].get(str(shard), 0))


def _scored(run: Run, model: Model, batch: "pa.RecordBatch") -> "pa.Table":
    try:
        return score(batch, model)
    except NonFiniteError as error:
        refusal = gate_record(batch.num_rows, (), [str(error)])
        raise GateStoppedError(
            run.spec.name, "score", run.records.write_once("score", refusal), run.records.uri
        ) from error
    except Exception as error:  # noqa: BLE001 - the estimator is its author's: whatever it raises, a retry meets it again
        # Estimators quote the values that they cannot take, and an account's values belong in no log.
        words = re.sub(r"'[^']*'|\"[^\"]*\"|-?\d[\d.,e+-]*", "…", str(error))
        raise ShardError(
            f"{run.spec.name}: the model {model.label} failed with {type(error).__name__}: {shorten(words, 300)}"
        ) from None


def _with_constants(run: Run, model: Model, batch: "pa.RecordBatch", predictions: "pa.Table") -> "pa.Table":
    """Put keys and partition before the predictions, and version, run and time behind them."""
    import pyarrow as pa

    rows = batch.num_rows
    by_name = {name: batch.column(name) for name in run.spec.features.keys}
    by_name[run.spec.features.partition] = pa.repeat(pa.scalar(run.plan.partition, pa.date32()), rows)
    by_name |= {name: predictions.column(name) for name in predictions.column_names}
    by_name["model_version"] = pa.repeat(model.label, rows)
    by_name["run_id"] = pa.repeat(run.plan.run_id, rows)
    scored_at = run.plan.scored_at.astimezone(dt.UTC)
    by_name["scored_at"] = pa.repeat(pa.scalar(scored_at, pa.timestamp("us", "UTC")), rows)
    names = [column.name for column in columns_of(run.plan, model.task)]
    return pa.table([by_name[name] for name in names], names=names)


def _open_writer(file: Any, schema: "pa.Schema") -> Any:
    from pyarrow import parquet

    # Random probabilities do not compress; dictionaries keep the constant columns to a few bytes.
    constants = ["model_version", "run_id"]
    return parquet.ParquetWriter(file, schema, compression="snappy", use_dictionary=constants)
