"""The local servers, where the settings name them."""

from collections.abc import Iterator

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, not_checked, ok, unreachable
from nightscore.local import servers

LOCAL = "a local server has no permissions and no such settings"


def check_local_servers(deployment: Deployment) -> Iterator[Finding]:
    """Look whether this checkout's servers run and answer."""
    if not deployment.config.is_local:
        yield not_checked("processes", "the settings name Google's own services")
        return
    found = servers.status(deployment.root)
    if not any(deployment.config.bigquery_host in server.urls for server in found):
        yield not_checked("processes", f"the servers that the settings name were not started from {deployment.root}")
        return
    for server in found:
        if server.answering:
            yield ok(f"{server.name} server", f"answers at {', '.join(server.urls)}")
        else:
            state = "runs and does not answer" if server.running else "does not run"
            yield unreachable(
                f"{server.name} server", f"The local {server.name} server {state}.", "nightscore local up"
            )
