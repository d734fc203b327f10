"""Promotion in Airflow: gather the evidence, ask a human, move the alias. Everything heavy is imported inside."""

import datetime as dt
import logging
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.exceptions import AirflowSkipException

log = logging.getLogger(__name__)

DAG_ID = "model_lifecycle"
LONGEST_BODY = 20_000


def gather(params: dict[str, Any] | None = None, dag_run: Any = None) -> dict[str, Any]:
    """Gather the evidence for a promotion, judge it, keep it; return what `approve` asks and `promote` needs.

    Raises:
        PromotionRefusedError: a pipeline's policy does not allow it; nobody is asked.
    """
    from nightscore.errors import shorten
    from nightscore.promotion import PromotionRefusedError, keep, propose
    from nightscore.promotion_text import proposal_as_markdown
    from nightscore.run import build_services
    from nightscore.settings import pipelines_dir, settings

    given = params or {}
    services = build_services(settings())
    proposal = propose(services, pipelines_dir(), given["model"], given["alias"], given["version"])
    log.info("%s", "\n".join(proposal.lines()) or "no policy asks for anything")
    kept = keep(services, proposal, by=_who(dag_run))
    if not proposal.passed:
        raise PromotionRefusedError(proposal)
    return {
        "proposal": kept,
        "subject": f"Shall {proposal.version.label} become {proposal.seen.name}@{proposal.seen.alias}?",
        "body": shorten(proposal_as_markdown(proposal, kept, given["reason"]), LONGEST_BODY),
        "approvers": proposal.approvers,
        "timeout": proposal.timeout.total_seconds(),
    }


class Approve(ApprovalOperator):
    """The task `approve`: asks whom the policies name; no answer in time is a no."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(subject="", body="", defaults=self.REJECT, **kwargs)

    def execute(self, context: Any) -> Any:
        """Ask what `gather` has returned, of whom it names, for as long as it says."""
        asked = context["ti"].xcom_pull(task_ids="gather")
        self.subject, self.body = asked["subject"], asked["body"]
        names = asked["approvers"]
        self.assigned_users = [{"id": name, "name": name} for name in names] if names else None
        self.response_timeout = dt.timedelta(seconds=asked["timeout"])
        return super().execute(context)


def promote(params: dict[str, Any] | None = None, dag_run: Any = None, ti: Any = None) -> None:
    """Move the alias as it was proposed and approved; its history names the approver and the evidence's digest.

    Airflow asks only whom the policies name, but an auth manager may let everybody answer: it is checked again here.

    Raises:
        ApproversError: somebody has approved whom the policies do not name.
        AliasMovedError: somebody else moved the alias since it was proposed.
    """
    from nightscore.promotion import carry_out, require_approver
    from nightscore.run import build_services
    from nightscore.settings import settings

    given = params or {}
    asked, answer = ti.xcom_pull(task_ids="gather"), ti.xcom_pull(task_ids="approve")
    user = answer.get("responded_by_user") or {}
    by = f"{user.get('name') or user.get('id') or 'somebody'} in Airflow, {dag_run.run_id}"
    registry = build_services(settings()).registry
    require_approver(registry, given["model"], asked["proposal"], str(user.get("id")))
    moved = carry_out(registry, given["model"], asked["proposal"], given["reason"], by=by)
    log.info("%s@%s is now %s/%s, approved by %s", moved.name, moved.alias, moved.name, moved.version, by)


class Propose(TriggerDagRunOperator):
    """The task `propose` of a pipeline: starts `model_lifecycle` once a challenger meets the policies."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:
        super().__init__(trigger_dag_id=DAG_ID, **kwargs)
        self.pipeline = pipeline

    def execute(self, context: Any) -> None:
        """Start it, or skip: most nights there is nothing to propose."""
        from nightscore.orchestration.tasks import RUN_KEY
        from nightscore.promotion import due_challenger
        from nightscore.run import build_services, open_run
        from nightscore.settings import pipelines_dir, settings
        from nightscore.specs import load_spec

        services = build_services(settings())
        run = open_run(services, self.pipeline, context["ti"].xcom_pull(task_ids="plan", key=RUN_KEY))
        record = run.records.read("evidence")
        spec = load_spec(self.pipeline, pipelines_dir())
        challenger = due_challenger(services, pipelines_dir(), spec, record) if record else None
        if challenger is None or spec.promotion is None:
            raise AirflowSkipException("No challenger is to be proposed tonight.")
        name, number = challenger.rsplit("/", 1)
        reason = f"{challenger} meets the policy of {self.pipeline} and of all that publish {spec.model}."
        self.conf = {"model": name, "version": number, "alias": spec.model.alias_name, "reason": reason}
        super().execute(context)


def _who(dag_run: Any) -> str:
    user = getattr(dag_run, "triggering_user_name", None)
    return f"{user or 'Airflow'}, {dag_run.run_id}"
