"""The examination: families of checks side by side, each with a deadline, so that a server that hangs hangs nothing."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nightscore.doctor.airflow_checks import check_airflow
from nightscore.doctor.bucket_checks import check_bucket
from nightscore.doctor.dataset_checks import check_datasets, check_operations_tables
from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Examined, Finding, fault, not_checked, unreachable
from nightscore.doctor.local_checks import check_local_servers
from nightscore.doctor.permission_checks import check_permissions
from nightscore.doctor.pipeline_checks import check_pipelines
from nightscore.doctor.reach_checks import BIGQUERY, STORAGE, check_reach
from nightscore.doctor.setting_checks import check_settings
from nightscore.doctor.version_checks import check_versions
from nightscore.errors import ConfigurationError, TransientError, shorten
from nightscore.settings import SettingError

Check = Callable[[Deployment], Iterator[Finding]]
REACH = "reach"


@dataclass(frozen=True)
class Family:
    """Checks of one kind; `needs`: the services without which there is nothing to look at; None: no settings either."""

    name: str
    check: Check
    needs: tuple[str, ...] | None = ()


FAMILIES: tuple[Family, ...] = (
    Family("settings", check_settings, None),
    Family("versions", check_versions, None),
    Family("local servers", check_local_servers),
    Family(REACH, check_reach),
    Family("permissions", check_permissions, (BIGQUERY, STORAGE)),
    Family("datasets", check_datasets, (BIGQUERY,)),
    Family("operations tables", check_operations_tables, (BIGQUERY,)),
    Family("bucket", check_bucket, (STORAGE,)),
    Family("pipelines", check_pipelines, (BIGQUERY, STORAGE)),
    Family("airflow", check_airflow, None),
)
NAMES = tuple(family.name for family in FAMILIES)


def examine(deployment: Deployment, only: Sequence[str] = NAMES) -> Iterator[Examined]:
    """Yield what is found, family by family in their order; within about twice the deployment's timeout all is said.

    Args:
        deployment: what to look at.
        only: the families that are asked for. Whether the services answer is looked at in any case where it matters.
    """
    wanted = [family for family in FAMILIES if family.name in only]
    first = [family for family in wanted if not family.needs]
    if any(family.needs for family in wanted) and not any(family.name == REACH for family in wanted):
        first.append(next(family for family in FAMILIES if family.name == REACH))
    started = {family.name: _Work(family, deployment) for family in first}
    silent: dict[str, Finding] | None = None
    for family in wanted:
        if family.needs and silent is None:
            silent = _silent(started[REACH])
            started |= {other.name: _start(other, deployment, silent) for other in wanted if other.needs}
        yield from started[family.name].results()


def _silent(reach: "_Work") -> dict[str, Finding]:
    """Return the services that cannot be used, and why."""
    found = {item.finding.check: item.finding for item in reach.results()}
    general = next((item for name, item in found.items() if name == REACH), None)
    return {
        name: finding
        for name in (BIGQUERY, STORAGE)
        if (finding := found.get(name, general)) is not None and finding.status in ("fault", "unreachable")
    }


def _start(family: Family, deployment: Deployment, silent: dict[str, Finding]) -> "_Work":
    reasons = [name for name in family.needs or () if name in silent]
    if not reasons:
        return _Work(family, deployment)
    why = f"{' and '.join(reasons)} cannot be asked; see {REACH}"
    return _Work(Family(family.name, lambda _: iter([not_checked(family.name, why)]), None), deployment)


class _Work:
    """A family at work in a thread of its own; what it finds is kept, so that it can be read more than once."""

    def __init__(self, family: Family, deployment: Deployment) -> None:
        self._family = family
        self._deployment = deployment
        self._began = time.monotonic()
        self._queue: queue.SimpleQueue[Examined | None] = queue.SimpleQueue()
        self._found: list[Examined] = []
        self._is_done = False
        # A daemon: a process that ends does not wait for a server that never answers.
        threading.Thread(target=self._work, name=f"doctor-{family.name}", daemon=True).start()

    def results(self) -> list[Examined]:
        """Wait until the family has ended or its time is up; return what it found."""
        while not self._is_done:
            left = self._began + self._deployment.timeout - time.monotonic()
            try:
                item = self._queue.get(timeout=max(0.0, left))
            except queue.Empty:
                item = None
                text = f"It did not end within {self._deployment.timeout:g} s; what is missing here was not looked at."
                fix = "Try again with a longer --timeout; if a server hangs, see its status page."
                self._found.append(self._examined(unreachable(self._family.name, text, fix)))
            if item is None:
                self._is_done = True
            else:
                self._found.append(item)
        return self._found

    def _work(self) -> None:
        try:
            for finding in self._findings():
                self._queue.put(self._examined(finding))
        finally:
            self._queue.put(None)

    def _findings(self) -> Iterator[Finding]:
        name = self._family.name
        if self._family.needs is not None and isinstance(self._deployment.settings, SettingError):
            yield not_checked(name, "the settings cannot be read; see settings")
            return
        try:
            yield from self._family.check(self._deployment)
        except TransientError as error:
            yield unreachable(name, shorten(error, 400), "Try again; see what reach says.")
        except ConfigurationError as error:
            yield fault(name, shorten(error, 600), "What the message says.")
        except Exception as error:  # noqa: BLE001 - the examination goes on, and says that it has a fault itself
            yield fault(name, f"This check failed itself: {type(error).__name__}: {shorten(error, 300)}", "Report it.")

    def _examined(self, finding: Finding) -> Examined:
        return Examined(self._family.name, finding, time.monotonic() - self._began)
