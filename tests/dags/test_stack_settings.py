"""The Airflow settings of docker-compose.yaml, against what Airflow and its providers say that there is."""

import re

from airflow.configuration import conf

from stack.compose import COMPOSE, read_dockerfile


def known():
    """Return every option as an environment variable."""
    described = conf.configuration_description
    return {
        f"AIRFLOW__{section}__{option}".upper()
        for section, content in described.items()
        for option in content["options"]
    }


def test_every_setting_is_one_of_airflow_s():
    """A misspelled one would be without effect, and nobody would be told."""
    names = set(re.findall(r"^  (AIRFLOW__\w+):", COMPOSE.read_text(), re.MULTILINE))
    assert len(names) > 20
    # The options of a broker are the broker's own: Celery hands the section on.
    own = {name for name in names if name.startswith("AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__")}
    assert own == {"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"}
    image = {name for name in read_dockerfile().stages["airflow"].environment() if name.startswith("AIRFLOW__")}
    assert (names | image) - own - known() == set()
    assert "AIRFLOW__SCHEDULER__IDLE_SLEEP_TIME" not in known()
