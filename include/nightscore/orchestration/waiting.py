"""Waiting for data in Airflow: a task that gives its slot back, and the trigger that looks in its place.

Both look by the same function as the command line. The trigger carries the spec and the moment when the wait began, so
a triggerer that is restarted, or another one, goes on where it stopped and waits no longer.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from nightscore.errors import ConfigurationError, GateRefusedError, NightscoreError
from nightscore.logs import bound
from nightscore.orchestration.tasks import refusals_noted, scoring_date
from nightscore.spec import Spec

log = logging.getLogger(__name__)


class TriggererError(ConfigurationError):
    """What a worker can look at, the triggerer cannot."""

    def __init__(self, pipeline: str, why: str) -> None:
        super().__init__(f"{pipeline}: the triggerer cannot look for the data that is waited for: {why}")


class WaitForData(BaseOperator):
    """The task `wait`: ends when the data that `features.wait` asks for is there."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline

    def execute(self, context: Any) -> None:
        """Look; where something is missing, give the slot back until it is there."""
        self._look(context, dt.datetime.now(dt.UTC), None)

    def resume(self, context: Any, event: Mapping[str, Any]) -> None:
        """Look once more, so that the task itself raises what there is to say.

        Raises:
            DataMissingError: the data did not come in time.
            TriggererError: the triggerer could not look.
        """
        self._look(context, dt.datetime.fromisoformat(event["began"]), event["fault"])

    def _look(self, context: Any, began: dt.datetime, fault: str | None) -> None:
        from nightscore.settings import pipelines_dir
        from nightscore.specs import load_spec

        run, given = context["dag_run"], context["params"].get("partition")
        partition = scoring_date(context.get("partition_key"), given, run.dag_id, run.run_id)
        spec = load_spec(self.pipeline, pipelines_dir())
        watch = _watch(spec, partition, began)
        with bound(pipeline=self.pipeline, partition=partition.isoformat()), refusals_noted("wait", context["ti"]):
            if watch.look() is None:
                log.info("the data is there: %s", watch.seen)
                return
        if fault is not None:
            raise TriggererError(self.pipeline, fault)
        trigger = DataTrigger(spec.model_dump(mode="json"), partition.isoformat(), began.isoformat())
        self.defer(trigger=trigger, method_name="resume")


class DataTrigger(BaseTrigger):
    """Looks, from the triggerer, until the data is there or the time is over; then the task goes on.

    Attributes:
        spec: the pipeline, as its JSON: the triggerer need not have the folder of pipelines.
        partition: the scoring date, as ISO text.
        began: when the wait began, as ISO text.
    """

    def __init__(self, spec: dict[str, Any], partition: str, began: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spec, self.partition, self.began = spec, partition, began

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the trigger is made of again."""
        arguments = {"spec": self.spec, "partition": self.partition, "began": self.began}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: `began`, and the `fault` that keeps the triggerer from looking, or None."""
        fault = None
        try:
            # Google's clients block, and importing them does: neither may hold up the triggerer's other triggers.
            watch = await asyncio.to_thread(self._watch)
            while (pause := await asyncio.to_thread(watch.look)) is not None:  # noqa: ASYNC110 - nobody can tell us
                await asyncio.sleep(pause)
        except GateRefusedError:
            pass  # the task looks once more, and says it
        except NightscoreError as error:
            fault = str(error)
        yield TriggerEvent({"began": self.began, "fault": fault})  # type: ignore[no-untyped-call]

    def _watch(self) -> Any:
        return _watch(
            Spec.model_validate(self.spec),
            dt.date.fromisoformat(self.partition),
            dt.datetime.fromisoformat(self.began),
        )


def _watch(spec: Spec, partition: dt.date, began: dt.datetime) -> Any:
    from nightscore.progress import LoggedProgress
    from nightscore.run import build_services
    from nightscore.settings import settings
    from nightscore.waiting import Watch

    return Watch(spec, partition, build_services(settings()).warehouse, LoggedProgress(), began)
