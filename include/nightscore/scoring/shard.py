"""One shard: score its frozen rows, store the predictions, write the receipt that commits them."""

import contextlib
import datetime as dt
import re
import time
import uuid
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nightscore.errors import ConfigurationError, TransientError, shorten
from nightscore.gates.gate import GateStoppedError, gate_record
from nightscore.logs import bound
from nightscore.objects import Json
from nightscore.plan import PlannedModel
from nightscore.predictions import columns_of
from nightscore.registry.model import Model
from nightscore.run import Run
from nightscore.scoring.checksum import Checksum
from nightscore.scoring.engine import Engine, Outcome
from nightscore.scoring.part import PartWriter
from nightscore.scoring.reading import iter_batches
from nightscore.scoring.score import NonFiniteError, combine
from nightscore.warehouse import WarehouseError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ATTEMPTS = 3


class ShardError(ConfigurationError):
    """A model failed on rows that its signature allows."""


class ReceiptError(ConfigurationError):
    """A receipt does not belong to the plan that it lies beside."""

    def __init__(self, run: Run, shard: int, what: str) -> None:
        super().__init__(
            f"{run.spec.name}: the receipt of shard {shard} in {run.records.uri}shards/ is of another {what} than the "
            f"run {run.plan.run_id}. Somebody has changed the run's records: delete them, and plan the partition again."
        )


def score_shard(run: Run, shard: int) -> Json:
    """Score one shard and return its receipt; a shard that has one is not scored again.

    Every attempt writes objects of its own, see `score_rows`. The receipt `shards/part-00007.json` names them and is
    created once: of two attempts, the one whose receipt is first has done the shard.

    Raises:
        ShardError: the champion raised an exception.
        GateStoppedError: the champion predicted NaN or infinity.
        ReceiptError: there is a receipt of another plan or model.
        TransientError: reading or writing broke off three times; a retry may succeed.
    """
    name = f"shards/part-{shard:05d}"
    done = run.records.read(name)
    if done is not None:
        return {**_require_own(run, shard, done), "reused": True}
    with bound(shard=shard):
        found, attempts = _score_again(run, shard)
    receipt = {
        "shard": shard,
        "model": run.plan.model.label,
        "model_digest": run.plan.model.digest,
        "plan_digest": run.plan.digest,
        "attempts": attempts,
        **found,
    }
    return _require_own(run, shard, run.records.write_once(name, receipt))


def score_rows(run: Run, shard: int, prefix: str) -> Json:
    """Score a shard's frozen rows, each of the run's models into an object of its own; write no receipt.

    The champion's predictions go to `<prefix>part-00007-<random>.parquet`, a challenger's to
    `<prefix>part-00007-<random>-<version>.parquet`. A challenger that fails is left out and reported.

    Returns:
        What the receipt says of them. Of the champion: `rows`, `part` (URI, or None when there is no row), `checksum`
        and `figures`. `challengers`: label → the same of a challenger, or `error`, a sentence. `load_seconds`,
        `seconds`, `rows_per_second`.

    Raises:
        ShardError: the champion raised an exception.
        NonFiniteError: the champion predicted NaN or infinity.
        WarehouseError, ObjectStoreError: reading or writing broke off; a retry may succeed.
    """
    opened = time.monotonic()
    model = _load(run, run.plan.model)
    challengers, failed = _load_challengers(run)
    started = time.monotonic()
    stem = f"{prefix}part-{shard:05d}-{uuid.uuid4().hex[:8]}"
    outputs = [_Output(run, model, f"{stem}.parquet")]
    outputs += [_Output(run, other, f"{stem}-{other.manifest.version}.parquet") for other in challengers]
    _score_into(run, shard, outputs)
    seconds = time.monotonic() - started
    champion, *others = outputs
    return {
        **champion.to_json(),
        "challengers": {**failed, **{other.model.label: other.to_json() for other in others}},
        "load_seconds": round(started - opened, 3),
        "seconds": round(seconds, 3),
        "rows_per_second": round(champion.checksum.rows / seconds) if seconds else 0,
    }


def _score_again(run: Run, shard: int) -> tuple[Json, int]:
    """Score a shard, from its beginning again after a passing error; return what was scored, and by which attempt."""
    for attempt in range(1, MOST_ATTEMPTS):
        try:
            return _score_or_refuse(run, shard), attempt
        except TransientError as error:
            run.progress.note(f"{run.spec.name}: shard {shard} is scored again from its beginning. {error}")
    return _score_or_refuse(run, shard), MOST_ATTEMPTS


def _score_or_refuse(run: Run, shard: int) -> Json:
    try:
        return score_rows(run, shard, f"{run.records.prefix}shards/")
    except NonFiniteError as error:
        refusal = run.records.write_once("score", gate_record(error.rows, (), [str(error)]))
        raise GateStoppedError(run.spec.name, "score", refusal, run.records.uri) from error


def _score_into(run: Run, shard: int, outputs: "Sequence[_Output]") -> None:
    total, rows = _expected_rows(run, shard), 0
    engine = Engine(
        [_Careful(output.model) for output in outputs],
        keep=run.spec.features.keys,
        hashes="_key_hash",
        threshold=run.spec.predictions.threshold,
    )
    with contextlib.ExitStack() as stack:
        for output in outputs:
            stack.enter_context(output)
        results = stack.enter_context(contextlib.closing(engine.scored(iter_batches(run, shard))))
        try:
            for scored in results:
                for output, outcome in zip(outputs, scored.outcomes, strict=True):
                    output.take(scored.kept, outcome)
                rows += scored.rows
                run.progress.shard_advanced(shard, rows, total)
        except _ModelError as error:
            raise ShardError(f"{run.spec.name}: the model {outputs[0].model.label} failed with {error}") from None
        if rows != total:
            raise WarehouseError(f"reading shard {shard}", f"{rows:,} rows arrived and {total:,} were frozen")


def _load(run: Run, pinned: PlannedModel) -> Model:
    return run.registry.load_pinned(pinned.name, pinned.version, pinned.digest)


def _load_challengers(run: Run) -> tuple[list[Model], Json]:
    """Return the challengers that can be loaded, and label → `error` of the others."""
    models, failed = [], {}
    for pinned in run.plan.challengers:
        try:
            models.append(_load(run, pinned))
        except ConfigurationError as error:
            failed[pinned.label] = {"error": shorten(error, 600)}
    return models, failed


def _expected_rows(run: Run, shard: int) -> int:
    frozen = run.records.read("freeze")
    if frozen is None:
        raise ConfigurationError(
            f"{run.spec.name}: the run {run.plan.run_id} was not frozen yet; run it from the start."
        )
    return int(frozen["shard_rows"].get(str(shard), 0))


def _require_own(run: Run, shard: int, receipt: Json) -> Json:
    """Return a receipt, after checking that it is of this plan and its model."""
    if receipt.get("plan_digest") != run.plan.digest:
        raise ReceiptError(run, shard, "plan")
    if receipt.get("model_digest") != run.plan.model.digest:
        raise ReceiptError(run, shard, "model")
    return receipt


class _ModelError(Exception):
    """A model raised an exception; the text is fit for logs and records."""

    def __init__(self, error: Exception) -> None:
        # Estimators quote the values that they cannot take, and an account's values belong in no log.
        words = re.sub(r"'[^']*'|\"[^\"]*\"|-?\d[\d.,e+-]*", "…", str(error))
        super().__init__(f"{type(error).__name__}: {shorten(words, 300)}")


@dataclass(frozen=True)
class _Careful:
    """A model whose exceptions are told from all others, and quote no values."""

    model: Model

    @property
    def task(self) -> str:
        return self.model.task

    @property
    def classes(self) -> Sequence[str]:
        return self.model.classes

    @property
    def form(self) -> Hashable:
        return self.model.form

    def decode(self, batch: Any) -> Any:
        return self._careful(self.model.decode, batch)

    def predict_decoded(self, features: Any) -> Any:
        return self._careful(self.model.predict_decoded, features)

    @staticmethod
    def _careful(function: Any, argument: Any) -> Any:
        try:
            return function(argument)
        except Exception as error:  # noqa: BLE001 - the estimator is its author's: a retry meets the same again
            raise _ModelError(error) from None


class _Output:
    """What one model has predicted so far: its figures, its checksum, and its part, which is uploaded as it grows.

    A context manager: the part appears in the bucket when the block ends without an exception.
    """

    def __init__(self, run: Run, model: Model, name: str) -> None:
        self.model = model
        self.checksum = Checksum.zero()
        self._run = run
        self._name = name
        self._figures: Json = {}
        self._error: str | None = None
        self._writer: PartWriter | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def take(self, keys: "pa.Table", outcome: Outcome | Exception) -> None:
        """Write a chunk's predictions; an exception in their place drops the part."""
        if isinstance(outcome, Exception):
            self._drop(outcome)
            return
        if self._error is not None:  # this chunk was scored while one before it failed
            return
        if self._writer is None:
            sink = self._opened.enter_context(self._run.bucket.stream_new(self._name, self._run.plan.expires))
            self._writer = self._opened.enter_context(_part_writer(self._run, self.model, sink))
        self._writer.write(keys, outcome.predictions)
        self._figures = combine([self._figures, outcome.figures])
        self.checksum += outcome.checksum

    def to_json(self) -> Json:
        """Return what a receipt says of it."""
        if self._error is not None:
            return {"error": self._error}
        return {
            "rows": self.checksum.rows,
            "part": self._run.bucket.uri(self._name) if self._writer else None,
            "checksum": str(self.checksum),
            "figures": self._figures,
        }

    def _drop(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = f"It raised {error}"
        if isinstance(error, NonFiniteError):
            self._error = f"It predicted NaN or infinity for {error.count:,} of {error.rows:,} rows of a batch."
        with contextlib.suppress(type(error)):
            self._opened.__exit__(type(error), error, error.__traceback__)


def _part_writer(run: Run, model: Model, sink: Any) -> PartWriter:
    """Return a writer of the predictions table's columns: keys, partition, predictions, version, run and time."""
    import pyarrow as pa

    constants = {
        run.spec.features.partition: pa.scalar(run.plan.partition, pa.date32()),
        "model_version": pa.scalar(model.label),
        "run_id": pa.scalar(run.plan.run_id),
        "scored_at": pa.scalar(run.plan.scored_at.astimezone(dt.UTC), pa.timestamp("us", "UTC")),
    }
    return PartWriter(sink, [column.name for column in columns_of(run.plan, model.task)], constants)
