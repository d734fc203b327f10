"""Doctor on the processes of `nightscore local up`."""

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.local_checks import check_local_servers


def test_servers_of_this_checkout_and_others(local_servers, tmp_path):
    here = Deployment(local_servers.environment(), local_servers.root, tmp_path)
    assert [(item.check, item.status, item.found) for item in check_local_servers(here)] == [
        ("storage server", "ok", f"answers at {local_servers.storage_url}"),
        (
            "bigquery server",
            "ok",
            f"answers at {local_servers.bigquery_url}, {local_servers.bigquery_storage_address}",
        ),
    ]
    elsewhere = Deployment(local_servers.environment(), tmp_path, tmp_path)
    [found] = check_local_servers(elsewhere)
    text = f"the servers that the settings name were not started from {tmp_path}"
    assert (found.status, found.found) == ("not checked", text)
