"""What Airflow's settings are where this runs, as JSON, for `nightscore doctor`. Of secrets, only lengths and digests.

A program of its own, because importing Airflow takes seconds and reads a home: `python -m
nightscore.orchestration.airflow_settings`.
"""

import hashlib
import json
import sys
from typing import Any

OPTIONS = (
    ("api", "base_url"),
    ("api", "host"),
    ("core", "auth_manager"),
    ("core", "dagbag_import_timeout"),
    ("core", "dags_folder"),
    ("core", "execution_api_server_url"),
    ("core", "executor"),
    ("core", "load_examples"),
    ("core", "simple_auth_manager_all_admins"),
    ("dag_processor", "dag_file_processor_timeout"),
    ("dag_processor", "min_file_process_interval"),
    ("scheduler", "scheduler_idle_sleep_time"),
    ("scheduler", "task_queued_timeout"),
    ("traces", "otel_on"),
    ("workers", "max_failed_heartbeats"),
    ("workers", "min_heartbeat_interval"),
)
SECRETS = (("api", "secret_key"), ("api_auth", "jwt_secret"), ("core", "fernet_key"))
LEAST_SECRET = 16  # characters; the digest of a shorter one would help to guess it


def describe() -> dict[str, Any]:
    """Return the settings: `section.option` → value; of secrets: whether given, length, first digits of the digest."""
    from airflow.configuration import conf

    everything = conf.as_dict(display_source=True, display_sensitive=True)
    found: dict[str, Any] = {}
    for section, option in OPTIONS:
        value, _ = _entry(everything, section, option)
        found[f"{section}.{option}"] = value
    for section, option in SECRETS:
        value, source = _entry(everything, section, option)
        given = bool(value) and source != "default"
        text = str(value or "")
        found[f"{section}.{option}"] = {
            "given": given,
            "length": len(text),
            "digest": hashlib.sha256(text.encode()).hexdigest()[:8] if given and len(text) >= LEAST_SECRET else None,
        }
    connection = conf.get("database", "sql_alchemy_conn", fallback="")
    found["database"] = connection.split(":", 1)[0].split("+", 1)[0]
    options = conf.getsection("celery_broker_transport_options") or {}
    found["celery.visibility_timeout"] = options.get("visibility_timeout")
    return found


def _entry(everything: Any, section: str, option: str) -> tuple[Any, str]:
    value = everything.get(section, {}).get(option)
    return (value[0], value[1]) if isinstance(value, tuple) else (value, "default")


if __name__ == "__main__":
    json.dump(describe(), sys.stdout)
