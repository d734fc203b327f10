"""A night's evidence: champion and challengers of one run beside each other, row by row, before any outcome is known.

One query joins the published predictions, the shadow table and the frozen rows of the run and counts in the warehouse;
a regression asks first where the champion's deciles are. It comes last, and nothing of it can fail the run: what a
retry would only repeat is recorded. Only a server that fails is worth a retry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nightscore.errors import ConfigurationError, TransientError, shorten
from nightscore.monitoring.agreement import (
    CHALLENGER_BIN,
    CHAMPION_BIN,
    DECILES,
    FEWEST_ROWS,
    FIRST_SLICE,
    MOST_VALUES,
    NULL,
    OTHER,
    SCORE_BINS,
    SCORE_WIDTH,
    WHOLE,
    counts_of_cells,
    figures,
)
from nightscore.monitoring.outcomes import log_odds_bin
from nightscore.objects import Json
from nightscore.run import Run

LONGEST_VALUE = 100  # characters of a slice's value


def evidence(run: Run) -> Json:
    """Count how the run's challengers score beside its champion; return the record.

    `digests` is label → the manifest's digest, of the champion and of every challenger, which is what they are;
    `challengers` is label → what was counted (`counts`, `moments`, `bins`, `slices`) and the `figures` that follow;
    `left_out` is challenger → a sentence why nothing was; `error` is why nothing could be counted at all.

    Raises:
        ConfigurationError: the challengers' predictions did not go into their table yet.
        TransientError: BigQuery failed.
    """
    gate, shadowed = run.records.read("prediction_gate"), run.records.read("shadow")
    if gate is None or shadowed is None:
        raise ConfigurationError(f"{run.spec.name}: the challengers of {run.plan.run_id} were not published yet.")
    task = str(gate["task"])
    found: Json = {
        "champion": run.plan.model.label,
        "digests": {pinned.label: pinned.digest for pinned in (run.plan.model, *run.plan.challengers)},
        "task": task,
        "threshold": run.spec.predictions.threshold if task == "binary" else None,
        "slices": list(run.spec.evidence.slices),
        "challengers": {},
        "left_out": {**run.plan.left_out, **shadowed["left_out"]},
        "error": None,
    }
    if not shadowed["published"] or not shadowed["rows"]:
        return found
    before = (run.warehouse.queries, run.warehouse.bytes_processed)
    try:
        counted = _count(run, task, found["threshold"])
    except TransientError:
        raise
    except Exception as error:  # noqa: BLE001 - the champion is published: nothing here may cost the night its end
        why = shorten(error, 600)
        unknown = dict.fromkeys(shadowed["rows"], f"It could not be compared: {shorten(error)}")
        return {**found, "left_out": {**found["left_out"], **unknown}, "error": why}
    for label, wanted in shadowed["rows"].items():
        rows = counted[label]["counts"]["rows"] if label in counted else 0
        if rows == wanted and rows:
            found["challengers"][label] = {**counted[label], "figures": figures(counted[label])}
        else:
            found["left_out"][label] = f"Of its {wanted:,} rows {rows:,} stand beside the champion's."
    queries, processed = run.warehouse.queries - before[0], run.warehouse.bytes_processed - before[1]
    return {**found, "queries": queries, "bytes_processed": processed}


def main_figures(record: Json | None) -> Json:
    """Return challenger → the main figures of a night's record, for the run's summary."""
    return {
        label: {name: item["figures"].get(name) for name in ("rows", "correlation", "psi", "flips", "flip_share")}
        for label, item in ((record or {}).get("challengers") or {}).items()
    }


def _count(run: Run, task: str, threshold: float | None) -> dict[str, Json]:
    shift, edges = _edges(run) if task == "regression" else (0.5, [])
    slices = run.spec.evidence.slices
    parameters = {
        "partition": run.plan.partition,
        "run_id": run.plan.run_id,
        "champion": run.plan.model.label,
        **({} if task == "multiclass" else {"shift": shift}),
        **({} if threshold is None else {"threshold": threshold}),
        **({"edges": edges} if edges else {}),
    }
    found = run.warehouse.query(
        cells_sql(run, task, slices, has_threshold=threshold is not None, has_edges=bool(edges)),
        parameters,
        doing=f"comparing the challengers of {run.spec.name} with {run.plan.model.label}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    return counts_of_cells(found.rows, task, slices, shift)


def _edges(run: Run) -> tuple[float, list[float]]:
    """Return the mean of the champion's predictions and the nine borders between their deciles."""
    [row] = run.warehouse.query(
        f"SELECT AVG(prediction) AS mean, APPROX_QUANTILES(prediction, {DECILES}) AS borders\n"
        f"FROM {run.warehouse.quoted(run.spec.predictions.table)}\n"
        f"WHERE `{run.spec.features.partition}` = @partition AND run_id = @run_id",
        {"partition": run.plan.partition, "run_id": run.plan.run_id},
        doing=f"looking for the deciles of {run.plan.model.label}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    ).rows
    return float(row["mean"] or 0.0), [float(border) for border in (row["borders"] or [])[1:-1]]


def cells_sql(run: Run, task: str, slices: Sequence[str], *, has_threshold: bool, has_edges: bool) -> str:
    """Return GoogleSQL that counts every pair of rows once as a whole, once in each bin, and once in each slice.

    The rows of its answer: the challenger, the kind of cell, the bin's or slice's value, and what is counted of it.
    """
    spec, quoted = run.spec, run.warehouse.quoted
    keys = ", ".join(f"`{key}` AS k{index}" for index, key in enumerate(spec.features.keys))
    using = ", ".join(f"k{index}" for index in range(len(spec.features.keys)))
    value = "score" if task == "binary" else "prediction"
    mine = f"`{spec.features.partition}` = @partition AND run_id = @run_id"
    shown = ", ".join(
        f"IFNULL(SUBSTR(CAST(`{name}` AS STRING), 1, {LONGEST_VALUE}), '{NULL}') AS s{index}"
        for index, name in enumerate(slices)
    )
    kinds = {
        WHOLE: "''",
        CHAMPION_BIN: _bin("a", task, has_edges=has_edges),
        CHALLENGER_BIN: _bin("b", task, has_edges=has_edges),
        **{FIRST_SLICE + index: f"s{index}" for index in range(len(slices))},
    }
    cases = " ".join(f"WHEN {kind} THEN {text}" for kind, text in kinds.items())
    measures = _measures(task, has_threshold=has_threshold)
    inner = ", ".join(f"{text} AS {name}" for name, text in measures.items())
    outer = ", ".join(f"{'MAX' if name == 'largest' else 'SUM'}({name}) AS {name}" for name in measures)
    frozen = (
        f"  JOIN (SELECT {keys}, {shown} FROM {quoted(run.snapshot_table)} WHERE _rejected_by IS NULL) AS f\n"
        f"  USING ({using})\n"
        if slices
        else ""
    )
    return (
        "WITH pairs AS (\n"
        f"  SELECT challenger, a, b{''.join(f', s{index}' for index in range(len(slices)))}\n"
        f"  FROM (SELECT {keys}, {value} AS a FROM {quoted(spec.predictions.table)}\n"
        f"    WHERE {mine} AND model_version = @champion) AS mine\n"
        f"  JOIN (SELECT {keys}, model_version AS challenger, {value} AS b FROM "
        f"{quoted(spec.predictions.shadow_table)} WHERE {mine}) AS other USING ({using})\n"
        f"{frozen}), cells AS (\n"
        f"  SELECT challenger, kind, CASE kind {cases} END AS value, {inner}\n"
        f"  FROM pairs CROSS JOIN UNNEST({list(kinds)}) AS kind GROUP BY 1, 2, 3\n"
        "), placed AS (\n"
        "  SELECT *, ROW_NUMBER() OVER (PARTITION BY challenger, kind ORDER BY n DESC, value) AS place FROM cells\n"
        ")\n"
        "SELECT challenger, kind,\n"
        f"  IF(kind >= {FIRST_SLICE} AND (place > {MOST_VALUES} OR n < {FEWEST_ROWS}), '{OTHER}', value) AS value,\n"
        f"  {outer}\nFROM placed GROUP BY 1, 2, 3"
    )


def _bin(side: str, task: str, *, has_edges: bool) -> str:
    if task == "multiclass":
        return side
    if task == "binary":
        from_lowest = f"{log_odds_bin(side, SCORE_WIDTH)} + {SCORE_BINS // 2}"
        return f"CAST(LEAST(GREATEST({from_lowest}, 0), {SCORE_BINS - 1}) AS STRING)"
    return f"CAST(RANGE_BUCKET({side}, @edges) AS STRING)" if has_edges else "'0'"


def _measures(task: str, *, has_threshold: bool) -> Mapping[str, Any]:
    if task == "multiclass":
        return {"n": "COUNT(*)", "changed": "COUNTIF(a != b)"}
    flags = {
        "flagged_by_champion": "COUNTIF(a >= @threshold)",
        "flagged_by_challenger": "COUNTIF(b >= @threshold)",
        "swapped_in": "COUNTIF(a < @threshold AND b >= @threshold)",
        "swapped_out": "COUNTIF(a >= @threshold AND b < @threshold)",
    }
    return {
        "n": "COUNT(*)",
        "sum_a": "SUM(a - @shift)",
        "sum_b": "SUM(b - @shift)",
        "sum_aa": "SUM((a - @shift) * (a - @shift))",
        "sum_bb": "SUM((b - @shift) * (b - @shift))",
        "sum_ab": "SUM((a - @shift) * (b - @shift))",
        "absolute": "SUM(ABS(a - b))",
        "squared": "SUM((a - b) * (a - b))",
        "largest": "MAX(ABS(a - b))",
        **(flags if has_threshold else {}),
    }
