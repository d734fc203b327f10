"""The prediction gate: may these staged predictions be published?"""

from nightscore.contents import Contents
from nightscore.errors import ConfigurationError, listed
from nightscore.gates.comparison import compare
from nightscore.gates.data_docs import keep_page
from nightscore.gates.expectations import check_table, unique_keys
from nightscore.gates.gate import Leave, gate_record
from nightscore.gates.soundness import soundness
from nightscore.objects import Json
from nightscore.predictions import stage
from nightscore.run import Run
from nightscore.scoring.checksum import Checksum, total
from nightscore.scoring.score import combine
from nightscore.spec import Expectation, Spec


class ShardsMissingError(ConfigurationError):
    """Not every shard has a receipt."""


def prediction_gate(run: Run) -> Json:
    """Stage what the shards scored and check it; return the gate's record.

    Always checked: every accepted row was scored, once; keys are never repeated; predictions are there, finite, and the
    probabilities that they are called; columns are those of the predictions table; not all rows have one score. Then
    come the spec's own expectations, and the comparison with the last partition before.

    Raises:
        ShardsMissingError: a shard has no receipt.
    """
    frozen = run.records.read("freeze")
    receipts = list(run.records.receipts())
    missing = sorted(set(range(run.plan.shards)) - {int(receipt["shard"]) for receipt in receipts})
    if missing or frozen is None:
        raise ShardsMissingError(
            f"{run.spec.name}: the run {run.plan.run_id} has no receipt for the shards {listed(missing)}; "
            "score them first."
        )
    task = run.registry.load_manifest(run.plan.model.name, run.plan.model.version, run.plan.model.digest).manifest.task
    before = (run.warehouse.queries, run.warehouse.bytes_processed)
    scored = total([Checksum.parse(receipt["checksum"]) for receipt in receipts])
    staged = stage(run, task, scored)
    checked = check_table(
        run.warehouse,
        run.staging_table,
        run.spec.name,
        "checks.predictions",
        built_in=built_in(run.spec, task),
        asked=run.spec.checks.predictions,
        keys=run.spec.features.keys,
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    figures = combine([receipt["figures"] for receipt in receipts if receipt["rows"]])
    sound, (compared, changes) = soundness(run, task, figures), compare(run, task, figures)
    return gate_record(
        staged.rows,
        [*sound, *checked.verdicts, *compared],
        _differences(run, frozen, scored, staged),
        leave=Leave.of(run),
        task=task,
        scored=scored.rows,
        accepted=int(frozen["accepted"]),
        checksum=str(scored),
        figures=figures,
        changes=changes,
        scoring_seconds=round(sum(float(receipt["seconds"]) for receipt in receipts), 3),
        shards=len(receipts),
        data_docs=keep_page(run.records, "prediction_gate", checked.page),
        **checked.bill.with_ours(run.warehouse, before).to_json(),
    )


def _differences(run: Run, frozen: Json, scored: Checksum, staged: Contents) -> list[str]:
    """Return in what the frozen, the scored and the staged rows differ."""
    rows, rejected = int(frozen["rows"]), int(frozen["rejected"])
    found = []
    if not rows - rejected == scored.rows == staged.rows:
        found.append(
            f"of {rows:,} frozen rows {rejected:,} were rejected, {scored.rows:,} were scored and {staged.rows:,} are "
            "staged"
        )
    elif not staged.is_exactly(run, scored):
        found.append(
            f"the staged rows are not those that were scored: {staged} with the checksum "
            f"{' and '.join(str(item.checksum) for item in staged.held[:3])}, and not {scored}"
        )
    return found


def built_in(spec: Spec, task: str) -> list[Expectation]:
    """Return what is always checked of a task's predictions."""
    value = "score" if task == "binary" else "prediction"
    found = [unique_keys(spec), Expectation(expect="expect_column_values_to_not_be_null", column=value)]
    if task == "binary":
        between = {"column": value, "min_value": 0, "max_value": 1}
        found.append(Expectation(expect="expect_column_values_to_be_between", **between))
    return found
