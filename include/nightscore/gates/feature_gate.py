"""The feature gate: may these frozen rows be scored?"""

from collections.abc import Iterable, Iterator, Sequence

from nightscore.errors import ConfigurationError, counted
from nightscore.gates.data_docs import keep_page
from nightscore.gates.expectations import Verdict, check_table, unique_keys
from nightscore.gates.gate import Leave, gate_record
from nightscore.objects import Json
from nightscore.registry.manifest import Input
from nightscore.run import Run
from nightscore.spec import Expectation, Spec
from nightscore.spec_values import budget_text


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
    rows, rejected = int(frozen["rows"]), int(frozen["rejected"])
    if rejected == rows:  # there is nothing that an expectation could be asked about
        return gate_record(
            0, list(_budgets(run, frozen)), [f"of {rows:,} frozen rows none is left to score"], rejected=rejected
        )
    checked = check_table(
        run.warehouse,
        run.accepted_view,
        run.spec.name,
        "checks.features",
        built_in=_built_in(run),
        asked=run.spec.checks.features,
        keys=run.spec.features.keys,
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    return gate_record(
        int(frozen["accepted"]),
        [*checked.verdicts, *_budgets(run, frozen)],
        (),
        leave=Leave.of(run),
        rejected=rejected,
        data_docs=keep_page(run.records, "feature_gate", checked.page),
        **checked.bill.to_json(),
    )


def _budgets(run: Run, frozen: Json) -> Iterator[Verdict]:
    """Yield whether row rules rejected no more rows than is allowed: all together, then those with a budget."""
    rows, by_rule = int(frozen["rows"]), frozen["rejected_by_rule"]
    rules = ", ".join(f"{name} {count:,}" for name, count in by_rule.items() if count)
    yield _budget("", int(frozen["rejected"]), rows, run.spec.checks.max_rejected, rules)
    for name, rule in run.spec.features.reject.items():
        if rule.max_rejected is not None:
            failed = frozen["rule_errors"].get(name, 0)
            yield _budget(
                name,
                int(by_rule[name]),
                rows,
                rule.max_rejected,
                f"the rule could not be evaluated on {failed:,} of them" if failed else "",
            )


def _budget(rule: str, rejected: int, rows: int, allowed: float, detail: str) -> Verdict:
    passed = rejected <= (allowed if isinstance(allowed, int) else allowed * rows)
    return Verdict(
        expectation="max_rejected",
        column=rule,
        severity="critical",
        passed=passed,
        observed=f"{counted(rejected, 'rejected row')} ({rejected / max(rows, 1):.2%})"
        + (f": {detail}" if detail else ""),
        wanted=f"at most {budget_text(allowed)}",
        rows=rows,
        failing_rows=0 if passed else rejected,
    )


def _built_in(run: Run) -> list[Expectation]:
    version = run.registry.load_manifest(run.plan.model.name, run.plan.model.version, run.plan.model.digest)
    return built_in(run.spec, run.plan.columns, version.manifest.inputs)


def built_in(spec: Spec, columns: Iterable[str], inputs: Sequence[Input]) -> list[Expectation]:
    """Return what is always checked of frozen columns, for a model of these inputs."""
    by_lower = {name.lower(): name for name in columns}
    solid = [by_lower.get(item.name.lower(), item.name) for item in inputs if not item.nullable]
    never_null = dict.fromkeys([*spec.features.keys, *solid])
    return [
        unique_keys(spec),
        *(Expectation(expect="expect_column_values_to_not_be_null", column=name) for name in never_null),
    ]
