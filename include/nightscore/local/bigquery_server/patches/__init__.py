"""What we mend in local-bigquery 0.4.0, one file per fault, applied in this order.

Each module has one public function, `apply()`. It is called once, after the settings are known and before anything is
served. Modules of the server that copy a function on import (`from x import f`) need the patch in both places.
"""

from bigquery_server.patches import (
    bundled_extensions,
    bytes_processed,
    interrupted_jobs,
    merge_dry_runs,
    modified_time,
    partition_decorators,
    pinned_sessions,
    range_partitions,
    request_ids,
    single_lookups,
    small_read_messages,
)

EXTENSIONS = bundled_extensions.apply
PATCHES = (
    pinned_sessions.apply,
    small_read_messages.apply,
    single_lookups.apply,
    bytes_processed.apply,
    merge_dry_runs.apply,
    range_partitions.apply,
    modified_time.apply,
    partition_decorators.apply,
    request_ids.apply,
    interrupted_jobs.apply,  # last: it is the first to open the database
)
