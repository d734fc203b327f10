"""What became of the rows that both models scored: one aggregated query, whose answer does not grow with the rows."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from nightscore.errors import ConfigurationError, near_miss
from nightscore.monitoring.performance import BUCKETS, CONFIDENCE, REPLICATES, Cells, compare, measures_by_bucket, rate
from nightscore.objects import Json
from nightscore.snapshot_sql import PARTITION_TYPES, key_hash
from nightscore.spec import Outcomes, Spec
from nightscore.warehouse import Column, Warehouse

WIDTH = 0.05  # of a bin, in log-odds
WIDTH_OF_A_NIGHT = 0.2  # of a bin where nights are told apart, and buckets are not
NEAREST = 1e-7  # to 0 and 1: log-odds beyond are counted together

# What a cell belongs to.
CHAMPION, CHALLENGER, SWAPS, NIGHT_OF_CHAMPION, NIGHT_OF_CHALLENGER = range(5)
# A row of SWAPS: whether the champion flags it (2) and whether the challenger does (1).
SWAPPED_IN, SWAPPED_OUT = 1, 2


class OutcomesError(ConfigurationError):
    """The table of outcomes is not as the spec says."""


def compare_outcomes(
    warehouse: Warehouse,
    spec: Spec,
    outcomes: Outcomes,
    champion: str,
    challenger: str,
    nights: Mapping[str, dt.date],
    one_sided: float,
) -> tuple[Json, dict[dt.date, Json]]:
    """Return how well two models tell the outcomes of these nights apart, on all of them and on each.

    Of a night that has outcomes: `rows` with one, and for `champion` and `challenger` what `measures_by_bucket` says.

    Args:
        warehouse: where the tables are.
        spec: the pipeline; its model is a binary classifier.
        outcomes: where the outcomes are.
        champion: label of the model whose predictions were published.
        challenger: label of a model in the shadow table.
        nights: run → night, of which both tables are read.
        one_sided: the confidence of the bound `least` of a difference.

    Raises:
        OutcomesError: the table lacks a column, or one has another type.
        StatementError: BigQuery refuses, for the bytes that it would bill, for example.
    """
    columns = require_outcomes(warehouse, spec, outcomes)
    threshold = spec.predictions.threshold
    parameters: dict[str, Any] = {
        "champion": champion,
        "challenger": challenger,
        "runs": list(nights),
        "first": min(nights.values()),
        "last": max(nights.values()),
        **({} if threshold is None else {"threshold": threshold}),
        **({} if outcomes.positive is None else {"positive": _text(outcomes.positive)}),
    }
    found = warehouse.query(
        outcomes_sql(warehouse, spec, outcomes, columns, has_threshold=threshold is not None),
        parameters,
        doing=f"comparing {champion} and {challenger} with the outcomes in {outcomes.table}",
        labels={"nightscore_pipeline": spec.name[:63]},
        max_bytes_billed=spec.limits.max_bytes_billed,
    )
    figures = _figures(found.rows, one_sided, has_threshold=threshold is not None)
    return figures, _by_night(found.rows, min(nights.values()))


def _by_night(rows: Sequence[Mapping[str, Any]], first: dt.date) -> dict[dt.date, Json]:
    own = {part: [row for row in rows if row["part"] == part] for part in (NIGHT_OF_CHAMPION, NIGHT_OF_CHALLENGER)}
    places = {place: at for at, place in enumerate(sorted({int(row["bucket"]) for row in own[NIGHT_OF_CHAMPION]}))}
    champion, challenger = (Cells.of(found, places) for found in own.values())
    both = zip(places, champion.rows.sum(axis=1), *map(measures_by_bucket, (champion, challenger)), strict=True)
    return {
        first + dt.timedelta(days=place): {"rows": int(n), "champion": one, "challenger": other}
        for place, n, one, other in both
    }


def _figures(rows: Sequence[Mapping[str, Any]], one_sided: float, *, has_threshold: bool) -> Json:
    parts = {part: [row for row in rows if row["part"] == part] for part in (CHAMPION, CHALLENGER, SWAPS)}
    buckets = {bucket: place for place, bucket in enumerate(sorted({int(row["bucket"]) for row in parts[CHAMPION]}))}
    if not buckets:
        return {"rows": 0, "reason": "no outcome of these nights is known yet"}
    champion, challenger = (Cells.of(parts[part], buckets) for part in (CHAMPION, CHALLENGER))
    swapped = {
        name: _swapped(parts[SWAPS], kind, buckets) if has_threshold else None
        for name, kind in (("swapped_in", SWAPPED_IN), ("swapped_out", SWAPPED_OUT))
    }
    return {
        "rows": int(champion.rows.sum()),
        "positives": int(champion.positives.sum()),
        "confidence": CONFIDENCE,
        "one_sided_confidence": one_sided,
        "buckets": len(buckets),
        "replicates": REPLICATES,
        **compare(champion, challenger, one_sided),
        **swapped,
    }


def _swapped(rows: Sequence[Mapping[str, Any]], kind: int, buckets: Mapping[int, int]) -> Json:
    cells = Cells.of([row for row in rows if int(row["bin"]) == kind], buckets)
    return rate(cells.rows.sum(axis=1), cells.positives.sum(axis=1))


def require_outcomes(warehouse: Warehouse, spec: Spec, outcomes: Outcomes) -> dict[str, Column]:
    """Return the columns `outcome` and `partition` of the table of outcomes.

    Raises:
        TableNotFoundError: there is no such table.
        OutcomesError: a column is missing, or of a type that it cannot have.
    """
    there = {column.name.lower(): column for column in warehouse.columns(outcomes.table)}

    def column(key: str, name: str, types: Sequence[str]) -> Column:
        found = there.get(name.lower())
        if found is None:
            near = near_miss(name, [item.name for item in there.values()])
            raise OutcomesError(f"{spec.name}: {key}: {outcomes.table} has no column {name!r}. {near}")
        if found.type not in types or found.mode == "REPEATED":
            raise OutcomesError(
                f"{spec.name}: {key}: the column {name!r} of {outcomes.table} is {found.type}; "
                f"{' or '.join(types)} is needed."
            )
        return found

    for name in spec.features.keys:
        column("features.keys", name, ("INT64", "STRING", "DATE"))
    partition = column("evidence.outcomes.partition", outcomes.partition or spec.features.partition, PARTITION_TYPES)
    outcome = column("evidence.outcomes.column", outcomes.column, ("BOOL", "INT64", "STRING"))
    if outcome.type == "STRING" and outcomes.positive is None:
        raise OutcomesError(
            f"{spec.name}: evidence.outcomes.positive: the column {outcome.name!r} of {outcomes.table} is STRING; "
            "say which of its values means the positive class."
        )
    return {"outcome": outcome, "partition": partition}


def outcomes_sql(
    warehouse: Warehouse, spec: Spec, outcomes: Outcomes, columns: Mapping[str, Column], *, has_threshold: bool
) -> str:
    """Return GoogleSQL that counts rows with an outcome by bucket of the key and bin of the score, for both models.

    And once more by night, without buckets and in wider bins, so that a year's answer is not much longer.

    A key that has several outcomes for one night counts once, as positive when one of them is. A bin is a twentieth of
    log-odds wide: even where scores are all near 0, rows of one bin are hardly apart.
    """
    quoted = warehouse.quoted
    names = spec.features.keys
    keys = ", ".join(f"`{key}` AS k{index}" for index, key in enumerate(names))
    using = ", ".join(f"k{index}" for index in range(len(names)))
    scored = f"`{spec.features.partition}` BETWEEN @first AND @last AND run_id IN UNNEST(@runs) AND model_version"
    swap = "IF(a >= @threshold, 2, 0) + IF(b >= @threshold, 1, 0)"
    parts = [CHAMPION, CHALLENGER, *([SWAPS] if has_threshold else []), NIGHT_OF_CHAMPION, NIGHT_OF_CHALLENGER]
    score = f"IF(part IN ({CHALLENGER}, {NIGHT_OF_CHALLENGER}), b, a)"
    bins = {
        CHAMPION: log_odds_bin("a", WIDTH),
        CHALLENGER: log_odds_bin("b", WIDTH),
        SWAPS: swap,
        NIGHT_OF_CHAMPION: log_odds_bin("a", WIDTH_OF_A_NIGHT),
        NIGHT_OF_CHALLENGER: log_odds_bin("b", WIDTH_OF_A_NIGHT),
    }
    cases = " ".join(f"WHEN {part} THEN {bins[part]}" for part in parts)
    day = columns["partition"]
    own = f"`{spec.features.partition}` AS night"
    positive = _is_positive(columns["outcome"], outcomes)
    every = ", ".join(str(place) for place in range(1, len(names) + 2))
    return (
        "WITH known AS (\n"
        f"  SELECT {keys}, DATE(`{day.name}`) AS night, MAX(IF({positive}, 1, 0)) AS y\n"
        f"  FROM {quoted(outcomes.table)}\n"
        f"  WHERE {_between(day)} AND `{columns['outcome'].name}` IS NOT NULL GROUP BY {every}\n"
        "), pairs AS (\n"
        f"  SELECT MOD(key_hash, {BUCKETS}) AS bucket, DATE_DIFF(night, @first, DAY) AS place, a, b, y\n"
        f"  FROM (SELECT {keys}, {own}, run_id, score AS a, {key_hash(names)} AS key_hash\n"
        f"    FROM {quoted(spec.predictions.table)} WHERE {scored} = @champion) AS mine\n"
        f"  JOIN (SELECT {keys}, {own}, run_id, score AS b\n"
        f"    FROM {quoted(spec.predictions.shadow_table)} WHERE {scored} = @challenger) AS other\n"
        f"  USING ({using}, night, run_id)\n"
        f"  JOIN known USING ({using}, night)\n"
        ")\n"
        f"SELECT part, IF(part >= {NIGHT_OF_CHAMPION}, place, bucket) AS bucket, CASE part {cases} END AS bin,\n"
        f"  COUNT(*) AS n, SUM(y) AS positives, SUM({score}) AS scores, SUM(({score} - y) * ({score} - y)) AS errors\n"
        f"FROM pairs CROSS JOIN UNNEST({parts}) AS part GROUP BY 1, 2, 3"
    )


def log_odds_bin(side: str, width: float) -> str:
    """Return GoogleSQL for the bin of a score: its log-odds divided by the width, rounded down, INT64."""
    inner = f"LEAST(GREATEST({side}, {NEAREST}), 1 - {NEAREST})"
    return f"CAST(FLOOR(LN({inner} / (1 - {inner})) / {width}) AS INT64)"


def _is_positive(column: Column, outcomes: Outcomes) -> str:
    if outcomes.positive is not None:
        return f"CAST(`{column.name}` AS STRING) = @positive"
    return f"`{column.name}`" if column.type == "BOOL" else f"`{column.name}` = 1"


def _between(column: Column) -> str:
    if column.type == "DATE":
        return f"`{column.name}` BETWEEN @first AND @last"
    end = f"{column.type}(DATE_ADD(@last, INTERVAL 1 DAY))"
    return f"`{column.name}` >= {column.type}(@first) AND `{column.name}` < {end}"


def _text(value: bool | int | str) -> str:
    """Return a value as BigQuery casts it to STRING.

    >>> _text(True), _text(1)
    ('true', '1')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
