"""The shadow table: what the challengers of a run would have published, in one partition replaced like the champion's.

It comes after the publication, and nothing that a challenger does can fail the run. One that could not score every row
is left out and reported; the others go in. Only a server that fails is worth a retry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nightscore.contents import Contents, read_contents
from nightscore.errors import ConfigurationError, shorten
from nightscore.objects import Json
from nightscore.predictions import columns_of, ensure_table
from nightscore.publications import last_publication
from nightscore.replacement import begin_publication, clear_partition, replace_partition
from nightscore.run import Run
from nightscore.scoring.checksum import Checksum, total
from nightscore.warehouse import Column


class ShadowError(ConfigurationError):
    """The challengers' predictions cannot go into their table."""


def shadow(run: Run) -> Json:
    """Replace the partition of `<predictions>_shadow` by what the challengers scored, in one MERGE; return its record.

    A row has the columns of the champion's, and its own `model_version`. The record holds `table`, `rows` and
    `checksums` (challenger, as `name/version` → rows, checksum) and `left_out` (challenger → a sentence why).

    Raises:
        ConfigurationError: the run was not published yet.
        LeaseLostError: another run has taken the partition over.
    """
    if not run.plan.challengers:
        return {"published": False, "reason": "no challengers", "table": None, **_figures({}, {})}
    if run.records.read("publish") is None:
        raise ConfigurationError(f"{run.spec.name}: the run {run.plan.run_id} was not published yet.")
    table = run.spec.predictions.shadow_table
    scored, left_out = _scored(run)
    if run.plan.dry_run:
        return {"published": False, "reason": "dry run", "table": table, **_figures(scored, left_out)}
    try:
        _publish(run, table, scored)
    except ConfigurationError as error:
        # The champion is published: what a retry would only repeat is reported, and fails nothing.
        left_out |= dict.fromkeys(scored, shorten(error, 600))
        return {"published": False, "reason": "refused", "table": table, **_figures({}, left_out)}
    return {"published": True, "table": run.warehouse.full_name(table), **_figures(scored, left_out)}


def _figures(scored: Mapping[str, Checksum], left_out: Mapping[str, str]) -> Json:
    return {
        "rows": {label: found.rows for label, found in scored.items()},
        "checksums": {label: str(found) for label, found in scored.items()},
        "left_out": dict(left_out),
    }


def _scored(run: Run) -> tuple[dict[str, Checksum], dict[str, str]]:
    """Return the checksums of the challengers that scored every accepted row, and a sentence for each of the others."""
    gate = run.records.read("prediction_gate") or {}
    receipts = list(run.records.receipts())
    scored: dict[str, Checksum] = {}
    left_out: dict[str, str] = {}
    for label in (pinned.label for pinned in run.plan.challengers):
        found = [(receipt["shard"], receipt["challengers"].get(label, {})) for receipt in receipts]
        errors = [(shard, item["error"]) for shard, item in found if "error" in item]
        sums = total([Checksum.parse(item["checksum"]) for _, item in found if "checksum" in item])
        if errors:
            shard, why = errors[0]
            left_out[label] = f"It failed in {len(errors)} of {len(receipts)} shards, first in shard {shard}: {why}"
        elif sums.rows != gate.get("accepted"):
            left_out[label] = f"It scored {sums.rows:,} of {gate.get('accepted', 0):,} rows."
        else:
            scored[label] = sums
    return scored, left_out


def _publish(run: Run, table: str, scored: Mapping[str, Checksum]) -> None:
    """Make the partition hold exactly what these challengers scored; where there is none, nothing.

    Rows of an earlier run must not stay where nothing replaces them: they would be compared with another champion's.
    """
    task = str((run.records.read("prediction_gate") or {})["task"])
    columns = columns_of(run.plan, task)
    _require_published(run)
    if scored:
        ensure_table(run, columns, table, f"What challengers would have published into {run.spec.predictions.table}.")
    token = begin_publication(run)
    if _holds(run, read_contents(run, table, task), scored):
        return
    if scored:
        _stage(run, columns, task, scored)
        replace_partition(run, run.shadow_staging_table, [column.name for column in columns], token, into=table)
    else:
        clear_partition(run, table, token)
    after = read_contents(run, table, task)
    if not _holds(run, after, scored):
        raise ShadowError(
            f"{run.spec.name}: {table} holds {after} for {run.plan.partition} after the scores of "
            f"{', '.join(scored) or 'no challenger'} were put into it. Something else writes to the table."
        )


def _require_published(run: Run) -> None:
    """Check that the champion's rows, with which these will be compared, are still those of this run."""
    last = last_publication(run.bucket, run.spec.name, run.plan.partition)
    if last is None or last["run_id"] != run.plan.run_id:
        found = last["run_id"] if last else "no run"
        raise ShadowError(f"{run.spec.predictions.table} holds the predictions of {found} by now.")


def _holds(run: Run, contents: Contents, scored: Mapping[str, Checksum]) -> bool:
    held = {(item.run_id, item.model_version): item.checksum for item in contents.held}
    return held == {(run.plan.run_id, label): found for label, found in scored.items()}


def _stage(run: Run, columns: Sequence[Column], task: str, scored: Mapping[str, Checksum]) -> None:
    """Load the parts of these challengers into the run's shadow staging table, unless it holds them."""
    if _holds(run, read_contents(run, run.shadow_staging_table, task), scored):
        return
    found = [receipt["challengers"][label]["part"] for receipt in run.records.receipts() for label in scored]
    nullable = [replace(c, mode="NULLABLE") if c.mode == "REQUIRED" else c for c in columns]
    run.warehouse.load(
        [part for part in found if part],
        run.shadow_staging_table,
        nullable,
        doing=f"staging the challengers' predictions of {run.spec.name}",
        job_key=run.plan.job_key("stage_shadow"),
        expires=run.plan.expires,
        labels=run.plan.labels,
    )
    staged = read_contents(run, run.shadow_staging_table, task)
    if not _holds(run, staged, scored):
        raise ShadowError(
            f"The parts of {', '.join(scored)} in {run.records.uri}shards/ hold {staged}, and not what was scored."
        )
