"""The three services: does each answer, how soon, and is its clock ours? Leases depend on the clocks of machines."""

import datetime as dt
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, not_checked, ok, unreachable, warning
from nightscore.errors import shorten

SHORT = 10.0  # seconds for one request
SKEW = 5.0  # seconds that clocks may differ without a word

BIGQUERY, STORAGE, STORAGE_READ = "BigQuery", "Cloud Storage", "Storage Read API"
APIS = {BIGQUERY: "bigquery", STORAGE: "storage", STORAGE_READ: "bigquerystorage"}


def check_reach(deployment: Deployment) -> Iterator[Finding]:
    """Ask each service for next to nothing, once."""
    config, services = deployment.config, deployment.services
    storage: Any = services.bucket.client
    asked = {
        BIGQUERY: (services.warehouse.client, f"/projects/{config.project}/datasets"),
        STORAGE: (storage, f"/b/{config.bucket}/o"),
    }
    dates: list[tuple[str, float]] = []
    for name, (client, path) in asked.items():
        yield from _ask(deployment, name, client, path, dates)
    yield _open_session(deployment)
    yield _clock(deployment, dates)


def _ask(
    deployment: Deployment, name: str, client: Any, path: str, dates: list[tuple[str, float]]
) -> Iterator[Finding]:
    import requests
    from google.auth.exceptions import GoogleAuthError

    url = client._connection.build_api_url(path, query_params={"maxResults": 1})  # noqa: SLF001 - headers are wanted
    began = time.monotonic()
    sent = dt.datetime.now(dt.UTC)
    try:
        answer = client._http.get(url, timeout=SHORT)  # noqa: SLF001
    except GoogleAuthError as error:
        yield _no_token(deployment, name, error)
        return
    except requests.RequestException as error:
        yield unreachable(name, f"{_host(url)} did not answer: {_cause(error)}.", _way(deployment))
        return
    seconds = time.monotonic() - began
    if "Date" in answer.headers:
        middle = sent + dt.timedelta(seconds=seconds / 2)
        # The header has whole seconds: it lies half of one behind, on average.
        theirs = parsedate_to_datetime(answer.headers["Date"]) + dt.timedelta(seconds=0.5)
        dates.append((name, (theirs - middle).total_seconds()))
    if answer.status_code >= 500 or answer.status_code == 429:
        yield unreachable(
            name,
            f"{_host(url)} answered {answer.status_code}.",
            "Try again; https://status.cloud.google.com says whether it is Google's.",
        )
    elif answer.status_code == 401:
        yield fault(name, f"{_host(url)} does not accept the credentials: {_message(answer)}", _log_in(deployment))
    elif "has not been used in project" in answer.text or "SERVICE_DISABLED" in answer.text:
        yield fault(name, _message(answer), f"gcloud services enable {APIS[name]}.googleapis.com {_in(deployment)}")
    else:  # 403 and 404 are answers, too; what may not be done is found among the permissions
        yield ok(name, f"{_host(url)} answered in {seconds * 1000:.0f} ms")


def _open_session(deployment: Deployment) -> Finding:  # noqa: PLR0911 - one for each way to end
    """Open a read session on the smallest table there is; opening one bills nothing."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.bigquery_storage_v1 import types

    config = deployment.config
    table = f"projects/{config.project}/datasets/{config.operations_dataset}/tables/fences"
    session = types.ReadSession(table=table, data_format=types.DataFormat.ARROW)
    name, began = STORAGE_READ, time.monotonic()
    host = config.bigquery_storage_host or "bigquerystorage.googleapis.com"
    try:
        deployment.services.warehouse.reader.create_read_session(
            parent=f"projects/{config.project}", read_session=session, max_stream_count=1, retry=None, timeout=SHORT
        )
    except exceptions.NotFound:
        milliseconds = (time.monotonic() - began) * 1000
        return ok(
            name, f"{host} answered in {milliseconds:.0f} ms; there is no table {config.operations_dataset}.fences yet"
        )
    except exceptions.Forbidden as error:
        text = shorten(error.message, 300)
        if "has not been used in project" in text or "SERVICE_DISABLED" in str(error):
            return fault(name, text, f"gcloud services enable {APIS[name]}.googleapis.com {_in(deployment)}")
        return fault(name, text, "See the permissions below: bigquery.readsessions.create, bigquery.tables.getData.")
    except exceptions.Unauthenticated as error:
        return fault(
            name, f"{host} does not accept the credentials: {shorten(error.message, 300)}", _log_in(deployment)
        )
    except (exceptions.GoogleAPICallError, exceptions.RetryError) as error:
        why = f"no answer within {SHORT:g} s" if isinstance(error, exceptions.DeadlineExceeded) else error.message
        fix = f"{_way(deployment)} gRPC needs HTTP/2 to {host}, which some proxies do not pass on."
        return unreachable(name, f"{host} did not answer: {shorten(why, 300)}.", fix)
    except GoogleAuthError as error:
        return _no_token(deployment, name, error)
    return ok(name, f"{host} opened a session in {(time.monotonic() - began) * 1000:.0f} ms")


def _clock(deployment: Deployment, dates: list[tuple[str, float]]) -> Finding:
    if not dates:
        return not_checked("clock", "no service said what time it is")
    name, skew = max(dates, key=lambda item: abs(item[1]))
    span = deployment.config.lease_seconds
    way = "behind" if skew > 0 else "ahead of"
    found = f"This machine's clock is {abs(skew):.0f} s {way} {name}'s."
    fix = "timedatectl set-ntp true, on the machine itself: a container has its clock."
    if abs(skew) > span / 2:
        return fault("clock", f"{found} A lease lasts {span} s: runs would take each other for dead.", fix)
    if abs(skew) > SKEW:
        return warning("clock", f"{found} Leases of {span} s bear it.", fix)
    return ok("clock", f"within {max(1.0, abs(skew)):.0f} s of {name}'s; a lease lasts {span} s")


def _no_token(deployment: Deployment, name: str, error: Any) -> Finding:
    account = deployment.config.service_account
    if account is not None and "getAccessToken" in str(error):
        found = f"This process may not act as {account}."
        fix = (
            f"gcloud iam service-accounts add-iam-policy-binding {account} --role=roles/iam.serviceAccountTokenCreator "
            "--member=MEMBER, where MEMBER is who this process runs as"
        )
        return fault(name, found, fix)
    if error.retryable:
        return unreachable(name, f"No access token could be had: {_cause(error)}.", _way(deployment))
    return fault(name, f"No access token could be had: {shorten(error, 300)}", _log_in(deployment))


def _way(deployment: Deployment) -> str:
    if deployment.config.is_local:
        return "Start the local servers: nightscore local up."
    return "Look at the network: DNS, firewall, HTTPS_PROXY, Private Google Access."


def _log_in(deployment: Deployment) -> str:
    account = deployment.config.service_account
    return "gcloud auth application-default login" + (f", as somebody who may act as {account}" if account else "")


def _in(deployment: Deployment) -> str:
    return f"--project={deployment.config.project}"


def _host(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0]


def _message(answer: Any) -> str:
    try:
        return shorten(answer.json()["error"]["message"], 300)
    except (ValueError, KeyError, TypeError):
        return shorten(answer.text, 300)


def _cause(error: BaseException) -> str:
    """Return the innermost reason: what the libraries wrap around it helps nobody."""
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {SHORT:g} s"
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    text = shorten(reason if isinstance(reason, BaseException) else error, 200)
    return text.rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1].rstrip(".")
