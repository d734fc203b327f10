"""Jobs that were running when the server died are failed at the next start; stock leaves them RUNNING for ever."""

from local_bigquery.engine import database
from local_bigquery.errors import BigQueryError
from local_bigquery.jobs import store
from local_bigquery.models import Job, JobStatus

# Not `backendError`, which would be truer: the client retries that one for ten minutes before it tells anyone.
REASON = "stopped"


def apply() -> None:
    """Fail every job that is not done; nothing can be running before this process serves."""
    error = BigQueryError(REASON, "Job aborted: the local server stopped while it was running.").proto()
    for (resource,) in database.fetch("SELECT resource FROM emulator.jobs WHERE state <> 'DONE'"):
        job = Job.model_validate_json(resource)
        store.save(job.replace(status=JobStatus(state="DONE", errorResult=error, errors=[error])))
