"""The feature gate: may these frozen rows be scored?"""

from nightscore.errors import ConfigurationError
from nightscore.gates.expectations import check_table, unique_keys
from nightscore.gates.gate import gate_record
from nightscore.objects import Json
from nightscore.run import Run
from nightscore.spec import Expectation


def feature_gate(run: Run) -> Json:
    """Check the accepted frozen rows; return the gate's record.

    Always checked: keys are never NULL and never repeated, inputs are not NULL where the model takes no NULL, and no
    more rows are rejected than the spec allows. Then come the spec's own expectations.
    """
    frozen = run.records.read("freeze")
    if frozen is None:
        raise ConfigurationError(
            f"{run.spec.name}: the run {run.plan.run_id} was not frozen yet; run it from the start."
        )
    verdicts = check_table(
        run.warehouse,
        run.accepted_view,
        run.spec.name,
        "checks.features",
        built_in=_built_in(run),
        asked=run.spec.checks.features,
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    return gate_record(int(frozen["accepted"]), verdicts, _rejections(run, frozen), rejected=int(frozen["rejected"]))


def _rejections(run: Run, frozen: Json) -> list[str]:
    rows, rejected = int(frozen["rows"]), int(frozen["rejected"])
    allowed = run.spec.checks.max_rejected
    if rejected == rows:
        return [f"of {rows:,} frozen rows none is left to score"]
    if rejected > allowed * rows:
        rules = ", ".join(f"{name} {count:,}" for name, count in frozen["rejected_by_rule"].items() if count)
        return [
            f"{rejected:,} of {rows:,} rows were rejected ({rejected / rows:.2%}), {allowed:.2%} is allowed: {rules}"
        ]
    return []


def _built_in(run: Run) -> list[Expectation]:
    version = run.registry.load_manifest(run.plan.model.name, run.plan.model.version, run.plan.model.digest)
    by_lower = {name.lower(): name for name in run.plan.columns}
    solid = [by_lower[item.name.lower()] for item in version.manifest.inputs if not item.nullable]
    never_null = dict.fromkeys([*run.spec.features.keys, *solid])
    return [
        unique_keys(run.spec),
        *(Expectation(expect="expect_column_values_to_not_be_null", column=name) for name in never_null),
    ]
