"""Replaying a run: its frozen rows are scored again with the pinned model version, and every row is compared.

Nothing is published. Estimators that compute every row by itself, like trees, must give the same bits again; others sum
in an order that depends on the processor, and may differ by rounding.
"""

import contextlib
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nightscore.errors import ConfigurationError, TransientError, listed, near_miss, shorten
from nightscore.objects import Json
from nightscore.predictions import columns_of
from nightscore.registry.model import Model
from nightscore.run import Run, utc_now
from nightscore.scoring.checksum import Checksum, total
from nightscore.scoring.reading import Rows
from nightscore.scoring.score import score
from nightscore.scoring.shard import score_rows
from nightscore.settings import user_name
from nightscore.warehouse import StatementError, translated

ROUNDING = 1e-12  # the largest difference that counts as rounding; of values above 1, relative to them
KEPT = dt.timedelta(days=1)  # should a replay die, its table goes by itself


class ReplayError(ConfigurationError):
    """The run cannot be replayed, or has no such row."""


def replay(run: Run) -> Json:
    """Score every frozen row of a run again and compare; return the record of the comparison.

    Returns:
        `verdict` (`equal` or `different`), `limit` (0 for bit equality), `compared` (rows), `differing` (rows that are
        not the same bits), `beyond` (rows that differ by more than the limit), `largest` (difference, of values above 1
        relative to them), `missing` and `added` (rows that only the run, only the replay has), `checksum`, `recorded`.

    Raises:
        ReplayError: the frozen rows are no longer kept, or the run did not score them.
    """
    gate = _require_kept(run)
    model = _load(run)
    alone = replace(run, plan=run.plan.model_copy(update={"challengers": ()}))
    name = uuid.uuid4().hex[:8]
    table = run.warehouse.staging_table(f"{run.plan.table_prefix}__replayed_{name}")
    parts: list[str] = []
    try:
        sums = []
        for shard in range(run.plan.shards):
            scored = score_rows(alone, shard, f"{run.records.prefix}replays/{name}/")
            parts += [scored["part"]] if scored["part"] else []
            sums.append(Checksum.parse(scored["checksum"]))
        _load_table(run, table, parts, model.task)
        limit = 0.0 if model.fitted.is_reproducible else ROUNDING
        figures = _compare(run, table, model, limit)
    finally:
        _discard(run, table, f"{run.records.prefix}replays/{name}/")
    equal = not (figures["beyond"] or figures["missing"] or figures["added"])
    return run.records.write_once(
        f"replays/{name}",
        {
            "run_id": run.plan.run_id,
            "pipeline": run.spec.name,
            "partition": run.plan.partition.isoformat(),
            "model_version": run.plan.model.label,
            "verdict": "equal" if equal else "different",
            "limit": limit,
            **figures,
            "checksum": str(total(sums)),
            "recorded": gate["checksum"],
            "replayed_by": user_name(),
            "replayed_at": utc_now().isoformat(timespec="seconds"),
        },
    )


def replay_row(run: Run, key: Mapping[str, str]) -> Json:
    """Score one frozen row again; return its values, its old and its new prediction.

    Args:
        run: the run.
        key: the value of every key column, as text.

    Returns:
        `key`, `values` (column → value of the model's inputs and checked columns), `rejected_by` (names of row rules),
        `old` and `new` (columns of the prediction; None of a row that was rejected), `difference`, `verdict`.

    Raises:
        ReplayError: the frozen rows are no longer kept, or hold no such row.
    """
    _require_kept(run)
    model = _load(run)
    frozen = _find_row(run, run.snapshot_table, key)
    names = [name for name in run.plan.columns if name not in (*run.spec.features.keys, run.spec.features.partition)]
    answer: Json = {
        "run_id": run.plan.run_id,
        "pipeline": run.spec.name,
        "partition": run.plan.partition.isoformat(),
        "model_version": run.plan.model.label,
        "key": {name: frozen[name] for name in run.spec.features.keys},
        "values": {name: frozen[name] for name in names},
        "rejected_by": (frozen["_rejected_by"] or "").split(",") if frozen["_rejected_by"] else [],
        "old": None,
        "new": None,
        "difference": None,
        "verdict": "rejected",
    }
    if answer["rejected_by"]:
        return answer
    columns = _prediction_columns(model.task)
    stored = _find_row(run, run.staging_table, key)
    old = {name: stored[name] for name in columns}
    [new] = score(_arrow_row(run, frozen), model).to_pylist()
    limit = 0.0 if model.fitted.is_reproducible else ROUNDING
    difference = _difference(old, new)
    verdict = "equal" if difference <= limit else "different"
    return answer | {"old": old, "new": new, "difference": difference, "limit": limit, "verdict": verdict}


def parse_key(run: Run, words: Sequence[str]) -> dict[str, str]:
    """Return the key that `NAME=VALUE` words give.

    Raises:
        ReplayError: a key column is missing, unknown, or there twice.
    """
    keys = {name.lower(): name for name in run.spec.features.keys}
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ReplayError(f"{shorten(word)!r} is not a key; write it like {run.spec.features.keys[0]}=4711.")
        if name.lower() not in keys:
            hint = near_miss(name, list(run.spec.features.keys))
            raise ReplayError(f"{run.spec.name} has no key {shorten(name)!r}. {hint}")
        if keys[name.lower()] in found:
            raise ReplayError(f"The key {name} is given twice.")
        found[keys[name.lower()]] = value
    missing = [name for name in run.spec.features.keys if name not in found]
    if missing:
        raise ReplayError(f"A row of {run.spec.name} is named by all of its keys; give {listed(missing)} as well.")
    return found


def _require_kept(run: Run) -> Json:
    """Return the record of the prediction gate, after checking that the run's tables are still there."""
    gate = run.records.read("prediction_gate")
    if gate is None:
        raise ReplayError(f"{run.spec.name}: the run {run.plan.run_id} did not get as far as scoring all of its rows.")
    gone = [name for name in (run.snapshot_table, run.staging_table) if run.warehouse.find_table(name) is None]
    if gone:
        raise ReplayError(
            f"{run.spec.name}: the rows of {run.plan.run_id} were kept until {run.plan.expires:%Y-%m-%d %H:%M} UTC; "
            f"there is no table {listed(gone)} any more. `keep` in the spec says for how long."
        )
    return gate


def _load(run: Run) -> Model:
    pinned = run.plan.model
    return run.registry.load_pinned(pinned.name, pinned.version, pinned.digest)


def _load_table(run: Run, table: str, parts: Sequence[str], task: str) -> None:
    columns = [replace(c, mode="NULLABLE") if c.mode == "REQUIRED" else c for c in columns_of(run.plan, task)]
    run.warehouse.load(
        parts,
        table,
        columns,
        doing=f"loading the replay of {run.plan.run_id}",
        job_key=f"nightscore_replay_{table.rsplit('_', 1)[-1]}",
        expires=utc_now() + KEPT,
        labels=run.plan.labels,
    )


def _discard(run: Run, table: str, prefix: str) -> None:
    """Delete what a replay made; what cannot be deleted now expires, or is found by `nightscore clean`."""
    with contextlib.suppress(TransientError, ConfigurationError), translated("deleting a replay"):
        run.warehouse.client.delete_table(table, not_found_ok=True)
        for found in run.bucket.iter_objects(prefix):
            run.bucket.delete(found.name, found.generation)


def _compare(run: Run, table: str, model: Model, limit: float) -> Json:
    keys = ", ".join(f"`{name}`" for name in run.spec.features.keys)

    def values(name: str) -> str:
        source = run.warehouse.quoted(name)
        if model.task == "multiclass":
            return f"SELECT {keys}, p.label AS label, p.probability AS value FROM {source}, UNNEST(probabilities) AS p"
        column = "score" if model.task == "binary" else "prediction"
        return f"SELECT {keys}, '' AS label, {column} AS value FROM {source}"

    [row] = run.warehouse.query(
        f"WITH old AS ({values(run.staging_table)}),\nnew AS ({values(table)}),\n"
        f"compared AS (\n  SELECT {keys},\n"
        "    LOGICAL_OR(old.value IS NULL) AS added, LOGICAL_OR(new.value IS NULL) AS missing,\n"
        "    MAX(ABS(old.value - new.value) / GREATEST(1, ABS(old.value))) AS difference\n"
        f"  FROM old FULL OUTER JOIN new USING ({keys}, label) GROUP BY {keys}\n)\n"
        "SELECT COUNT(*) AS compared, COUNTIF(difference > 0) AS differing, COUNTIF(difference > @most) AS beyond,\n"
        "  IFNULL(MAX(difference), 0) AS largest, COUNTIF(missing) AS missing, COUNTIF(added) AS added\nFROM compared",
        {"most": limit},
        doing=f"comparing the replay of {run.plan.run_id}",
        labels=run.plan.labels,
    ).rows
    return {name: float(row[name]) if name == "largest" else int(row[name]) for name in row}


def _find_row(run: Run, table: str, key: Mapping[str, str]) -> dict[str, Any]:
    wanted = " AND ".join(f"`{name}` = CAST(@key_{i} AS {run.plan.columns[name]})" for i, name in enumerate(key))
    shown = ", ".join(f"{name}={shorten(value, 60)}" for name, value in key.items())
    try:
        found = run.warehouse.query(
            f"SELECT * FROM {run.warehouse.quoted(table)} WHERE {wanted}",
            {f"key_{i}": value for i, value in enumerate(key.values())},
            doing=f"looking for {shown} in {run.plan.run_id}",
            labels=run.plan.labels,
        ).rows
    except StatementError as error:
        types = ", ".join(f"{name} is {run.plan.columns[name]}" for name in key)
        raise ReplayError(f"{run.spec.name}: {shown} cannot be looked for ({types}): {shorten(error, 300)}") from error
    if len(found) > 1:  # of rows that share a key, rules may have left one
        found = [row for row in found if not row.get("_rejected_by")]
    if len(found) != 1:
        raise ReplayError(
            f"{run.spec.name}: the run {run.plan.run_id} froze {len(found) or 'no'} row(s) with {shown} "
            f"for {run.plan.partition}."
        )
    return found[0]


def _arrow_row(run: Run, frozen: Mapping[str, Any]) -> Any:
    """Return one frozen row the way that shards read it."""
    import pyarrow as pa

    rows = Rows(
        run.warehouse.reader,
        run.warehouse.config.project,
        run.snapshot_table,
        [name for name in run.plan.columns if name != run.spec.features.partition],
        f"_shard = {frozen['_shard']} AND _key_hash = {frozen['_key_hash']}",
        f"reading a row of {run.plan.run_id}",
    )
    try:
        return pa.Table.from_batches(list(rows))
    finally:
        rows.close()


def _prediction_columns(task: str) -> tuple[str, ...]:
    return {"binary": ("score",), "regression": ("prediction",)}.get(task, ("prediction", "probabilities"))


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> float:
    """Return the largest difference of two predictions, of values above 1 relative to them."""
    if "probabilities" in old:
        before = {item["label"]: item["probability"] for item in old["probabilities"]}
        pairs = [(float(before[item["label"]]), float(item["probability"])) for item in new["probabilities"]]
    else:
        [name] = old
        pairs = [(float(old[name]), float(new[name]))]
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)
