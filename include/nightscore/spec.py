"""What a pipeline is: one frozen object, parsed from `dags/pipelines/<name>/pipeline.yaml`.

The classes here say what a spec may hold; `nightscore.specs` reads files into them. Airflow parses specs over and over,
so this module imports nothing heavier than pydantic.
"""

import datetime as dt
import functools
import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WrapValidator,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from nightscore.conditions import Condition, Marker, parse_condition
from nightscore.errors import ConfigurationError, shorten
from nightscore.names import DAG_PREFIX, MODEL_NAME, PIPELINE_NAME, SOURCE_MODEL_NAME, SQL_FILE, SUITE_FILE
from nightscore.spec_values import (
    Budget,
    Bytes,
    Challenger,
    Column,
    Confidence,
    Cpu,
    Days,
    Level,
    Positive,
    Quantity,
    Share,
    Span,
    Table,
    TimeOfDay,
    condition_text,
    parse_conditions,
    parse_reference,
)

# Columns that nightscore adds to the frozen table, and to the predictions.
INTERNAL_COLUMNS = ("_key_hash", "_shard", "_rejected_by")
OUTPUT_COLUMNS = ("score", "prediction", "probabilities", "model_version", "run_id", "scored_at")


def _there_and_back(moment: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    return moment.replace(tzinfo=zone).astimezone(dt.UTC).astimezone(zone).replace(tzinfo=None)


def skipped_tick(cron: str, timezone: str, year: int = 2027) -> dt.datetime | None:
    """Return a local time of the schedule that does not exist because the clock is put forward, or None.

    >>> skipped_tick("30 2 * * *", "Europe/Amsterdam")
    datetime.datetime(2027, 3, 28, 2, 30)
    >>> skipped_tick("30 2 * * *", "UTC") is None
    True
    """
    from croniter import croniter

    return next((minute for minute in _skipped_minutes(timezone, year) if croniter.match(cron, minute)), None)


@functools.lru_cache(maxsize=64)
def _skipped_minutes(timezone: str, year: int) -> tuple[dt.datetime, ...]:
    import zoneinfo

    zone = zoneinfo.ZoneInfo(timezone)
    days = [dt.datetime(year, 1, 1) + dt.timedelta(days=day) for day in range(365)]  # noqa: DTZ001 - wall clock times
    offsets = [day.replace(tzinfo=zone).utcoffset() or dt.timedelta() for day in days]
    shorter = [day for day, before, after in zip(days, offsets, offsets[1:], strict=False) if after > before]
    minutes = (day + dt.timedelta(minutes=minute) for day in shorter for minute in range(24 * 60))
    # A wall clock time that does not exist comes back as another one from a trip through UTC.
    return tuple(minute for minute in minutes if _there_and_back(minute, zone) != minute)


class Part(BaseModel):
    """Base of every part of a spec: frozen, strict about unknown keys."""

    # The strings beneath the keys are for people and editors; `specs.json_schema` reads them. pydantic would for every
    # task that starts, out of the source, which takes as long as all else that is imported here.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(Part):
    """When the pipeline runs."""

    cron: Annotated[str | None, Field(examples=["0 2 * * *"])] = None
    """A cron expression of five fields. Give this or `after`."""

    after: Annotated[Table | None, Field(examples=["features.card_accounts"])] = None
    """A table, whose asset's event in Airflow starts a run for the event's partition. See [waiting](waiting.md)."""

    timezone: Annotated[str, Field(examples=["Europe/Amsterdam"])] = "UTC"
    """The IANA time zone that the cron expression, and the times of `features.wait`, are read in."""

    offset: Annotated[int, Field(ge=-366, le=366, examples=[0])] = -1
    """Which tick of `cron` names the partition: 0 the run's own, -1 the one before, a nightly run's yesterday."""

    def latest_partition(self, now: dt.datetime) -> dt.date:
        """Return the partition of the last run that is due by `now` (with its zone), as Airflow's timetable names it.

        >>> Schedule(cron="0 2 * * *").latest_partition(dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC))
        datetime.date(2026, 11, 19)

        Raises:
            ConfigurationError: the schedule has no `cron`.
        """
        from croniter import croniter

        if self.cron is None:
            raise ConfigurationError(
                f"schedule: after: {self.after} names the partition when its event comes, no clock."
            )
        local = now.astimezone(self.zone)
        # get_prev looks strictly before its start: a run due at this very second counts.
        ticks = croniter(self.cron, local + dt.timedelta(microseconds=1))
        tick: dt.datetime = ticks.get_prev(dt.datetime)
        for _ in range(abs(self.offset)):
            tick = ticks.get_prev(dt.datetime) if self.offset < 0 else ticks.get_next(dt.datetime)
        return tick.date()

    def day_of_run(self, partition: dt.date, today: dt.date) -> dt.date:
        """Return the day on which `cron` scores a partition; `today` without `cron`, and where that day is to come.

        >>> Schedule(cron="0 2 * * *").day_of_run(dt.date(2026, 11, 12), dt.date(2026, 11, 20))
        datetime.date(2026, 11, 13)
        """
        tick = self.tick_of(partition)
        return today if tick is None else min(tick.date(), today)

    def tick_of(self, partition: dt.date) -> dt.datetime | None:
        """Return when `cron` scores a partition, in the schedule's zone; None without `cron`.

        >>> str(Schedule(cron="0 2 * * *").tick_of(dt.date(2026, 11, 19)))
        '2026-11-20 02:00:00+00:00'
        """
        from croniter import croniter

        if self.cron is None:
            return None
        midnight = dt.datetime.combine(partition + dt.timedelta(days=1), dt.time(), self.zone)
        ticks = croniter(self.cron, midnight)
        tick: dt.datetime = ticks.get_prev(dt.datetime)  # the partition's own
        for _ in range(abs(self.offset)):
            tick = ticks.get_next(dt.datetime) if self.offset < 0 else ticks.get_prev(dt.datetime)
        return tick

    def __str__(self) -> str:
        return self.cron or f"after {self.after}"

    @property
    def zone(self) -> dt.tzinfo:
        """The time zone."""
        import zoneinfo

        return zoneinfo.ZoneInfo(self.timezone)

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        from croniter import CroniterBadDateError, croniter

        if value is None:
            return None
        # A lone R would be another minute for every process that reads the spec.
        if len(value.split()) != 5 or not croniter.is_valid(value) or re.search(r"\br\b", value, re.IGNORECASE):
            raise ValueError(f"{shorten(value)!r} is not a cron expression of five fields, like 0 2 * * *")
        try:
            croniter(value).get_next()
        except CroniterBadDateError as error:
            raise ValueError(f"{value!r} names a day that never comes") from error
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        import zoneinfo

        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{shorten(value)!r} is not an IANA time zone, like Europe/Amsterdam") from error
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "Schedule":
        if (self.cron is None) == (self.after is None):
            raise ValueError("give either `cron` or `after`")
        if self.after is not None and self.offset != -1:
            raise ValueError("`offset` counts the ticks of `cron`; after a table, the event names the partition")
        return self

    @model_validator(mode="after")
    def _no_skipped_hour(self) -> "Schedule":
        skipped = skipped_tick(self.cron, self.timezone) if self.cron else None
        if skipped is not None:
            raise ValueError(
                f"in {self.timezone} the clock skips {skipped:%H:%M} when summer time begins, and Airflow then names "
                "the wrong partition: that night would not be scored. Choose an hour that exists every day, or UTC"
            )
        return self


class Rule(Part):
    """A row rule."""

    when: Annotated[str, Field(min_length=1, max_length=10_000, examples=["age NOT BETWEEN 18 AND 110"])]
    """A GoogleSQL condition. A row for which it is true is not scored but quarantined."""

    max_rejected: Annotated[Budget | None, Field(examples=["0.5%"])] = None
    """The largest share of rows, or number of rows, that this rule may reject; above it nothing is published."""


class Wait(Part):
    """What a run waits for before it begins."""

    timeout: Annotated[Span, Field(gt=dt.timedelta(0), le=dt.timedelta(days=7), examples=["3h"])]
    """How long: 90m, 3h or 2d. A run whose data has not come by then fails, and nothing is published."""

    every: Annotated[Span, Field(ge=dt.timedelta(seconds=1), le=dt.timedelta(hours=1), examples=["5m"])] = dt.timedelta(
        minutes=1
    )
    """How often it looks."""

    until: Annotated[
        tuple[Annotated[str, AfterValidator(condition_text)], ...],
        Field(min_length=1, max_length=8),
        WrapValidator(
            parse_conditions, json_schema_input_type=str | Annotated[list[str], Field(min_length=1, max_length=8)]
        ),
        Field(examples=["rows >= 1000000"]),
    ]
    """A condition, or a list of which all must hold. There are three; see [waiting for data](waiting.md)."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What the texts say."""
        return tuple(parse_condition(text) for text in self.until)


class Features(Part):
    """Where the rows to score come from."""

    table: Annotated[Table | None, Field(examples=["features.card_accounts"])] = None
    """The feature table, `dataset.table` or `project.dataset.table`. Give this or `sql`."""

    sql: Annotated[Annotated[str, Field(pattern=rf"^{SQL_FILE}$")] | None, Field(examples=["features.sql"])] = None
    """A file beside `pipeline.yaml` with one GoogleSQL SELECT; the query may use the parameter `@partition` (DATE)."""

    partition: Annotated[Column, Field(examples=["snapshot_date"])]
    """The column that says which day a row belongs to: DATE, DATETIME or TIMESTAMP."""

    keys: Annotated[tuple[Column, ...], Field(min_length=1, max_length=8, examples=[["account_id"]])]
    """The columns that together name a row of a partition: INT64, STRING or DATE; never NULL, never twice."""

    reject: Annotated[
        dict[
            Column,
            Annotated[
                Rule,
                BeforeValidator(lambda v: {"when": v} if isinstance(v, str) else v, json_schema_input_type=str | Rule),
            ],
        ],
        Field(examples=[{"impossible_age": "age NOT BETWEEN 18 AND 110"}]),
    ] = {}
    """Row rules: a name, and a condition or a mapping each. A row for which one is true, or fails, is quarantined."""

    wait: Annotated[Wait | None, Field(examples=[{"timeout": "3h", "until": "rows >= 1000000"}])] = None
    """What a run waits for before it begins, where the features are sometimes late. See [below](#featureswait)."""

    query: Annotated[str | None, Field(json_schema_extra={"hidden": True})] = None
    """The text of the file that `sql` names, read together with the spec."""

    @property
    def rules(self) -> dict[str, str]:
        """The row rules' conditions."""
        return {name: rule.when for name, rule in self.reject.items()}

    @field_serializer("reject")
    def _reject(self, value: dict[str, Rule]) -> dict[str, Any]:
        # A rule that is only a condition is written as one: specs have the digests that they had before.
        return {n: r.when if r.max_rejected is None else r.model_dump() for n, r in value.items()}

    @field_validator("keys")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({key.lower() for key in value}) < len(value):
            raise ValueError("a key is named twice")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "Features":
        if (self.table is None) == (self.sql is None):
            raise ValueError("give either `table` or `sql`")
        conditions = self.wait.conditions if self.wait and self.sql else ()
        for condition in [found for found in conditions if not isinstance(found, Marker)]:
            raise ValueError(
                f"`wait` cannot look for `{condition}` in what `sql` selects: that would run, and bill, the query at "
                "every look. Wait for a table's row that says its data is complete, like `ops.loads_done has row`"
            )
        names = [self.partition.lower(), *(key.lower() for key in self.keys)]
        for name in names:
            if name in INTERNAL_COLUMNS or name in OUTPUT_COLUMNS:
                raise ValueError(f"the column {name!r} has a name that nightscore adds itself")
        if names[0] in names[1:]:
            raise ValueError("the partition column belongs to every key already; leave it out of `keys`")
        return self


class ModelReference(Part):
    """Which model scores the rows."""

    source: Annotated[Literal["mlflow", "vertex"] | None, Field(examples=["mlflow"])] = None
    """Another registry, from which the model is [imported](importing-models.md) when a run is planned."""

    name: Annotated[str, Field(pattern=rf"^{SOURCE_MODEL_NAME}$", examples=["credit_default"])]
    """The model's name in the registry, or in `source`."""

    alias: Annotated[Annotated[str, Field(pattern=rf"^{MODEL_NAME}$")] | None, Field(examples=["challenger"])] = None
    """The alias to resolve when a run is planned; `champion` where neither alias nor version is given."""

    version: Annotated[Annotated[int, Field(ge=1)] | None, Field(examples=[7])] = None
    """A version number instead of an alias: the pipeline then stays on it."""

    challengers: Annotated[tuple[Challenger, ...], Field(max_length=4, examples=[["challenger"]])] = ()
    """Aliases or version numbers of the same model that score the same rows beside it, into `<predictions>_shadow`."""

    @field_validator("name")
    @classmethod
    def _ours(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("source", "") is None and not re.fullmatch(MODEL_NAME, value):
            raise PydanticKnownError("string_pattern_mismatch", {"pattern": MODEL_NAME})
        return value

    @field_validator("challengers")
    @classmethod
    def _others(cls, value: tuple[int | str, ...], info: ValidationInfo) -> tuple[int | str, ...]:
        seen: set[int | str] = set()
        published: tuple[int | str | None, ...] = (info.data.get("alias"), info.data.get("version"))
        if info.data.get("alias", "") is None and info.data.get("version", "") is None:  # and neither is faulty
            published = ("champion",)
        for item in value:
            if item in seen:
                raise ValueError(f"{item!r} is named twice")
            if item in published:
                raise ValueError(f"{item!r} is what the pipeline publishes; a challenger is another alias or version")
            seen.add(item)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "ModelReference":
        if self.alias is not None and self.version is not None:
            raise ValueError("give either `alias` or `version`")
        return self

    @property
    def alias_name(self) -> str:
        """The alias that counts where no version is given."""
        return self.alias or "champion"

    @property
    def challenger_references(self) -> tuple["ModelReference", ...]:
        """The challengers as references of their own."""
        return tuple(
            ModelReference(
                source=self.source, name=self.name, **{"version" if isinstance(item, int) else "alias": item}
            )
            for item in self.challengers
        )

    def __str__(self) -> str:
        where = f"{self.source}:" if self.source else ""
        return f"{where}{self.name}@{self.version or self.alias_name}"


def _condition_columns(condition: object) -> list[str]:
    """Return the columns of a row condition of Great Expectations: a mapping, or the text of one.

    >>> _condition_columns({"type": "comparison", "column": {"name": "product"}, "operator": "==", "parameter": "gold"})
    ['product']
    >>> _condition_columns('col("product") == "gold"')
    ['product']
    """
    if isinstance(condition, str):
        return re.findall(r"""\bcol\(\s*["']([^"']+)["']\s*\)""", condition)
    if isinstance(condition, list):
        return [name for part in condition for name in _condition_columns(part)]
    if not isinstance(condition, dict):
        return []
    column = condition.get("column")
    own = [column["name"]] if isinstance(column, dict) and isinstance(column.get("name"), str) else []
    return own + [name for key, part in condition.items() if key != "column" for name in _condition_columns(part)]


class Expectation(Part):
    """One Great Expectations expectation, by its own name and arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    expect: Annotated[str, Field(pattern=r"^expect_[a-z0-9_]+$", examples=["expect_column_values_to_not_be_null"])]
    """The expectation's name."""

    severity: Annotated[Literal["critical", "warning"], Field(examples=["warning"])] = "critical"
    """A critical failure stops the run; a warning is recorded."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The expectation's own arguments."""
        return dict(self.model_extra or {})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the arguments name."""
        single = [self.arguments.get(key) for key in ("column", "column_A", "column_B")]
        several = [self.arguments.get(key) or [] for key in ("column_list", "column_set")]
        named = [*single, *(item for items in several if isinstance(items, list) for item in items)]
        return tuple(item for item in named if isinstance(item, str))

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the arguments name, and those of the row condition."""
        return (*self.columns, *_condition_columns(self.arguments.get("row_condition")))


class Levels(Part):
    """From which change on a comparison warns, and from which it stops the run."""

    warn: Annotated[Level | None, Field(examples=[0.1])] = None
    """The run is published, with a warning."""

    stop: Annotated[Level | None, Field(examples=[0.25])] = None
    """Nothing is published."""

    def __str__(self) -> str:
        shown = [f"{word} above {level:g}" for word, level in (("warn", self.warn), ("stop", self.stop)) if level]
        return ", ".join(shown) or "anything"

    @model_validator(mode="after")
    def _in_order(self) -> "Levels":
        if self.warn is not None and self.stop is not None and self.warn > self.stop:
            raise ValueError(f"`warn` ({self.warn:g}) is above `stop` ({self.stop:g})")
        return self


class Compare(Part):
    """The predictions beside those of the last partition before, as it was published."""

    rows: Annotated[Levels, Field(examples=[{"warn": "20%", "stop": "50%"}])] = Levels(warn=0.2)
    """Change of the number of rows, as a share of what it was."""

    mean: Annotated[Levels, Field(examples=[{"warn": 0.25, "stop": 1}])] = Levels(warn=0.25)
    """Shift of the mean prediction, in standard deviations of what it was. Not for several classes."""

    psi: Annotated[Levels, Field(examples=[{"warn": 0.1, "stop": 0.25}])] = Levels(warn=0.25)
    """Population stability index of the predictions: 20 bins of a score, the labels of several classes."""


class SuiteFile(Part):
    """Expectations from a suite that Great Expectations has saved."""

    suite: Annotated[str, Field(pattern=rf"^{SUITE_FILE}$", examples=["features.json"])]
    """A file beside `pipeline.yaml`: the suite as Great Expectations saves it, with `name` and `expectations`."""

    also: Annotated[
        tuple[dict[str, Any], ...], Field(examples=[[{"expect": "expect_column_to_exist", "column": "age"}]])
    ] = ()
    """Further expectations, written like those of a list."""


# A suite's file becomes the list of its expectations when the spec is read.
_LIST_OR_SUITE = BeforeValidator(lambda value: value, json_schema_input_type=tuple[Expectation, ...] | SuiteFile)


class Checks(Part):
    """What must hold before scoring and before publishing: a list of checks, or a mapping that names a suite's file."""

    features: Annotated[
        tuple[Expectation, ...],
        _LIST_OR_SUITE,
        Field(examples=[[{"expect": "expect_table_row_count_to_be_between", "min_value": 1000}]]),
    ] = ()
    """Checked on the frozen rows that are to be scored."""

    predictions: Annotated[
        tuple[Expectation, ...],
        _LIST_OR_SUITE,
        Field(examples=[[{"expect": "expect_column_mean_to_be_between", "column": "score", "max_value": 0.4}]]),
    ] = ()
    """Checked on the staged predictions."""

    max_rejected: Annotated[Budget, Field(examples=["1%"])] = 0.0
    """The largest share of rows, or number of rows, that row rules may reject; above it nothing is published."""

    max_same_score: Annotated[Share, Field(examples=["50%"])] = 0.9
    """The share of rows with one and the same score, or value, above which there is a warning; all stop the run."""

    compare: Compare = Compare()
    """The predictions beside those of the last partition before."""

    warnings: Annotated[Literal["publish", "hold"], Field(examples=["hold"])] = "publish"
    """What becomes of a run with warnings: it is published, or held until somebody runs it with `--accept-warnings`."""


class Predictions(Part):
    """Where the predictions go."""

    table: Annotated[Table, Field(examples=["predictions.credit_default"])]
    """The predictions table; created from the spec when it does not exist."""

    threshold: Annotated[Annotated[float, Field(ge=0, le=1)] | None, Field(examples=[0.5])] = None
    """For a binary classifier: the score from which a row counts as flagged in the run's summary."""

    @property
    def shadow_table(self) -> str:
        """Where the challengers' predictions go."""
        return f"{self.table}_shadow"


class Limits(Part):
    """What a run may cost."""

    max_bytes_billed: Annotated[Bytes | None, Field(examples=["200GB"])] = None
    """The most bytes that one query of the run may bill, like 200GB."""

    max_rows: Annotated[Annotated[int, Field(ge=1)] | None, Field(examples=[2_000_000])] = None
    """The most rows that the partition may have; with more, nothing is frozen. It needs `features.table`."""

    shards: Annotated[Annotated[int, Field(ge=1, le=64)] | None, Field(examples=[8])] = None
    """How many shards score in parallel; by default one for every 2 million rows, at most 64."""

    parallel_shards: Annotated[int, Field(ge=1, le=64, examples=[4])] = 16
    """How many of them one run may have in progress at once in Airflow."""


class Outcomes(Part):
    """Where it is written what became of the scored rows."""

    table: Annotated[Table, Field(examples=["features.card_outcomes"])]
    """A table with the keys of the features, their partition's date, and the outcome; a row comes when it is known."""

    column: Annotated[Column, Field(examples=["defaulted"])]
    """The column with the outcome: BOOL, INT64 or STRING. NULL is not known yet."""

    partition: Annotated[Column | None, Field(examples=["snapshot_date"])] = None
    """Its column with the scoring date, DATE, DATETIME or TIMESTAMP; by default it is called as in the features."""

    positive: Annotated[Positive, Field(examples=["default"])] = None
    """The value that means the positive class; by default TRUE or 1. A column of STRING needs it."""


class Evidence(Part):
    """What is counted of champion and challengers beside each other."""

    slices: Annotated[tuple[Column, ...], Field(max_length=8, examples=[["education", "marriage"]])] = ()
    """Columns of the features (STRING, BOOL, INT64 or DATE) by whose values the swap set is counted."""

    outcomes: Annotated[
        Outcomes | None, Field(examples=[{"table": "features.card_outcomes", "column": "defaulted"}])
    ] = None
    """Where it is written what became of the scored rows. See [below](#evidenceoutcomes)."""

    @field_validator("slices")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("a column is named twice")
        return value


class Promotion(Part):
    """When a challenger may become the champion. A rule that is not given is not asked for."""

    min_nights: Annotated[int, Field(ge=1, le=366, examples=[14])] = 14
    """On how many nights at least both versions have scored the same rows."""

    max_flips: Annotated[Share | None, Field(examples=["2%"])] = None
    """The largest share of rows that the threshold decides otherwise; of several classes, whose label differs."""

    max_auc_loss: Annotated[Share | None, Field(examples=[0.005])] = None
    """By how much the challenger's AUC may be lower, at this `confidence`, one-sided. It needs `evidence.outcomes`."""

    confidence: Annotated[Confidence, Field(examples=["95%"])] = 0.95
    """How sure `max_auc_loss` wants to be."""

    max_psi: Annotated[Level | None, Field(examples=[0.25])] = None
    """The largest population stability index between the two."""

    approvers: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=250)], ...], Field(max_length=50, examples=[["alice"]])
    ] = ()
    """Users of Airflow who may approve; without any, whoever may answer there."""

    timeout: Annotated[Span, Field(gt=dt.timedelta(0), le=dt.timedelta(days=30), examples=["24h"])] = dt.timedelta(
        hours=24
    )
    """How long an answer is waited for, like 24h; none by then is a no."""


class TaskResources(Part):
    """What the pod of a task is given: requested, and its limit as well."""

    cpu: Annotated[Cpu, Field(examples=[4])]
    """Processors, like 4, 0.5 or 500m. Scoring runs in as many threads, rounded up."""

    # Both are required: whatever a task says of its resources stands in place of all that the pod template says.
    memory: Annotated[Quantity, Field(examples=["8Gi"])]
    """Memory, like 8Gi. A task that takes more is killed."""

    ephemeral_storage: Annotated[Quantity | None, Field(examples=["10Gi"])] = None
    """Disk of the node, like 10Gi."""


class Resources(Part):
    """What Kubernetes gives the pipeline's tasks. Airflow's other executors do not look at it."""

    score: Annotated[TaskResources | None, Field(examples=[{"cpu": 4, "memory": "8Gi"}])] = None
    """The pod of every shard; without it, what the pod template says."""

    rest: Annotated[TaskResources | None, Field(examples=[{"cpu": "500m", "memory": "2Gi"}])] = None
    """The pod of every other task; without it, what the pod template says."""


class Spec(Part):
    """One scoring pipeline."""

    name: Annotated[str, Field(pattern=rf"^{PIPELINE_NAME}$", json_schema_extra={"hidden": True})]
    """The pipeline's name: the folder's."""

    description: Annotated[str, Field(max_length=20_000, examples=["Chance that an account defaults."])] = ""
    """What the predictions are and what to do when a night fails; the first lines of the DAG's page."""

    owner: Annotated[str, Field(min_length=1, max_length=250, examples=["risk-ml"])] = "nightscore"
    """The team that answers for it."""

    schedule: Annotated[
        Schedule | None,
        BeforeValidator(
            lambda v: {"cron": v} if isinstance(v, str) else v, json_schema_input_type=str | Schedule | None
        ),
        Field(examples=["0 2 * * *"]),
    ] = None
    """A cron expression, or a mapping with `cron` or `after`. Without it, only triggers start a run."""

    features: Features

    model: Annotated[
        ModelReference,
        BeforeValidator(parse_reference, json_schema_input_type=str | ModelReference),
        Field(examples=["credit_default@champion"]),
    ]
    """Which model scores the rows: NAME@ALIAS, NAME@VERSION, `mlflow:`NAME@ALIAS, or a mapping. See [below](#model)."""

    checks: Checks = Checks()
    predictions: Predictions
    limits: Limits = Limits()
    evidence: Evidence = Evidence()

    promotion: Annotated[Promotion | None, Field(examples=[{"min_nights": 14, "max_flips": "2%"}])] = None
    """When a challenger may become the champion. See [below](#promotion)."""

    resources: Annotated[Resources | None, Field(examples=[{"score": {"cpu": 4, "memory": "8Gi"}}])] = None
    """What Kubernetes gives the pipeline's tasks. See [below](#resources)."""

    deadline: Annotated[TimeOfDay | None, Field(examples=["06:00"])] = None
    """When predictions must be there: local time of the schedule. See [deadlines](observability.md#deadlines)."""

    keep: Annotated[Days, Field(examples=["90d"])] = dt.timedelta(days=30)
    """How long the frozen rows and the staged predictions of a run are kept, like 30d."""

    @model_validator(mode="after")
    def _not_onto_itself(self) -> "Spec":
        source = (self.features.table or "").lower()
        if source == self.predictions.table.lower():
            raise ValueError("`predictions.table` is the feature table itself")
        if self.model.challengers and source == self.predictions.shadow_table.lower():
            raise ValueError("the challengers' table, `predictions.table` with `_shadow`, is the feature table itself")
        if self.schedule is not None and (self.schedule.after or "").lower() in [
            table.lower() for table in self.tables
        ]:
            raise ValueError("`schedule.after` is a table that the pipeline itself publishes, which would never begin")
        return self

    @model_validator(mode="after")
    def _counted(self) -> "Spec":
        if self.limits.max_rows is not None and self.features.sql is not None:
            raise ValueError(
                "`limits.max_rows` needs `features.table`: counting a query's rows before they are frozen would bill "
                "it twice. Use `limits.max_bytes_billed`, or expect_table_row_count_to_be_between"
            )
        return self

    @model_validator(mode="after")
    def _known_by_outcomes(self) -> "Spec":
        if self.promotion is not None and self.promotion.max_auc_loss is not None and self.evidence.outcomes is None:
            raise ValueError("`promotion.max_auc_loss` needs `evidence.outcomes`: without them there is no AUC")
        own = [self.features.partition.lower(), *(key.lower() for key in self.features.keys)]
        for name in self.evidence.slices:
            if name.lower() in own:
                raise ValueError(f"`evidence.slices`: {name!r} tells every row apart; a slice has few values")
        return self

    @field_serializer("keep")
    def _keep(self, value: dt.timedelta) -> str:
        return f"{value.days}d"

    @property
    def dag_id(self) -> str:
        """The DAG's name in Airflow."""
        return f"{DAG_PREFIX}{self.name}"

    @property
    def source(self) -> str:
        """The feature table or the SQL file, as people name it."""
        return str(self.features.table or self.features.sql)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of which the pipeline replaces partitions."""
        shadow = (self.predictions.shadow_table,) if self.model.challengers else ()
        return (self.predictions.table, *shadow)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything the spec says that can change a prediction or a verdict."""
        unread = {"description", "owner", "schedule", "deadline", "promotion", "resources"}
        content = self.model_dump(mode="json", exclude=unread)
        del content["features"]["wait"]  # it changes when a run begins, and nothing that it finds
        # A spec without what was added later has the digest that it had before that was known.
        if not self.model.challengers:
            del content["model"]["challengers"]
        if self.model.source is None:
            del content["model"]["source"]
        if self.limits.max_rows is None:
            del content["limits"]["max_rows"]
        del content["evidence"]["outcomes"]  # they come weeks later, and change nothing that was scored
        if not self.evidence.slices:
            del content["evidence"]
        for name in ("max_same_score", "compare", "warnings"):
            if getattr(self.checks, name) == Checks.model_fields[name].default:
                del content["checks"][name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
