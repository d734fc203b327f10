"""What a run asks of its servers: one line for each request, the same in every run of a pipeline.

Names that differ from run to run (its id, its date, random suffixes) are replaced by words, so that the third MERGE of
one run can be found in another.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

STAGES = ("plan", "freeze", "feature_gate", "score", "prediction_gate", "publish", "run", "the end")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
_WORDS = (
    (re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]{8}"), "RUN"),
    (re.compile(r"(?<=__)\d{8}[0-9a-f]{8}(?=__)"), "RUN"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "DAY"),
    (re.compile(r"\d{13,}"), "TOKEN"),
    (re.compile(r"-[0-9a-f]{8,32}(?=\.)"), "-*"),
    (re.compile(r"\bt[0-9a-f]{10}(x\d+)?(?![0-9a-f])"), "PIPELINE"),
)
_STATEMENT = re.compile(r"\s*(\w+(?: (?:OR REPLACE )?(?:TABLE|VIEW|INTO|TEMP\w* TABLE))?)\b")
_TABLE = re.compile(r"`([\w-]+\.[\w-]+\.[\w-]+|[\w-]+)`")


@dataclass(frozen=True)
class Call:
    """One request: which service, what was asked for, and how often just that was asked for before."""

    server: str
    method: str
    what: str
    occurrence: int

    @property
    def writes(self) -> bool:
        """Whether the request is sent by a method that may change something."""
        return self.method in WRITES

    @property
    def changes(self) -> bool:
        """Whether the request changes something: a SELECT is sent by POST, and changes nothing."""
        return self.writes and not self.what.startswith(("dry-run ", "job SELECT", "query SELECT"))

    @property
    def runs_on(self) -> bool:
        """Whether the server goes on with the request when nobody waits for its answer any more."""
        return self.changes and self.what.startswith(("job ", "load "))

    def __str__(self) -> str:
        return f"{self.server}: {self.what}" + (f" ({self.occurrence + 1})" if self.occurrence else "")


def stages(calls: Iterable[Call]) -> dict[Call, str]:
    """Return the stage to which each request of an undisturbed run belongs; its record is a stage's last one."""
    names = iter(STAGES)
    found, stage = {}, next(names)
    for call in calls:
        found[call] = stage
        if call.what == f"create runs/PIPELINE/RUN/{stage}.json":
            stage = next(names)
    return found


def normal(text: str) -> str:
    """Return a name without what differs from run to run."""
    for pattern, word in _WORDS:
        text = pattern.sub(word, text)
    return text


def describe_bigquery(method: str, target: str, body: bytes) -> str:
    """Return a request to BigQuery's REST API in a few words."""
    path = urlsplit(target).path.split("/projects/", 1)[-1].partition("/")[2]
    content = _json(body) if method == "POST" else {}  # the rows of an upload follow by PUT
    match method, path.split("/"):
        case "POST", ["queries"]:
            found = f"query {_statement(content['query'])}"
        case "POST", ["jobs"]:
            found = _job(content["configuration"])
        case "GET", ["jobs" | "queries" as kind, _]:
            found = "get job" if kind == "jobs" else "get results"
        case "POST", ["datasets"]:
            found = f"create dataset {content['datasetReference']['datasetId']}"
        case "GET", ["datasets", dataset]:
            found = f"get dataset {dataset}"
        case "POST", ["datasets", _, "tables"]:
            found = f"create table {content['tableReference']['tableId']}"
        case _, ["datasets", _, "tables", table]:
            found = f"{method.lower()} table {table}"
        case _:
            found = f"{method} {path}"
    return normal(found)


def describe_storage(method: str, target: str, body: bytes, uploaded: str | None) -> str:
    """Return a request to Cloud Storage's JSON API in a few words; `uploaded`: the object that it uploads a part of."""
    if uploaded:
        return f"send {uploaded}"
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    _, _, name = url.path.partition("/o/")
    if method == "POST" and url.path.startswith("/upload/"):
        created = query.get("name") or _json(body[body.find(b"{") : body.find(b"}") + 1])["name"]
        found = f"{'begin' if query['uploadType'] == 'resumable' else 'create'} {created}"
    elif name:
        found = f"{'read' if method == 'GET' else method.lower()} {unquote(name)}"
    else:
        found = f"list {query.get('prefix', '')}" if method == "GET" else f"{method} {url.path}"
    return normal(found)


def _job(configuration: dict[str, Any]) -> str:
    if "load" in configuration:
        return f"load into {configuration['load']['destinationTable']['tableId']}"
    return ("dry-run " if configuration.get("dryRun") else "job ") + _statement(configuration["query"]["query"])


def _statement(sql: str) -> str:
    verb = _STATEMENT.match(sql)
    table = _TABLE.search(sql)
    return f"{verb.group(1).upper() if verb else '?'} {table.group(1).split('.')[-1] if table else ''}".strip()


def _json(body: bytes) -> dict[str, Any]:
    return json.loads(body or b"{}")
