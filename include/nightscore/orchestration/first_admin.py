"""Airflow's first administrator: `python -m nightscore.orchestration.first_admin`, after `airflow db migrate`.

Where there is any user already, nothing happens. The password is random, and shown this once; Airflow keeps its hash.
"""

import contextlib
import logging
import secrets
import sys
import warnings

NAME = "admin"
BYTES = 18


def first_admin() -> str | None:
    """Create the administrator and return the password; None where there are users already."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        users = builder.sm
        if users.count_users():
            return None
        password = secrets.token_urlsafe(BYTES)
        role = users.find_role("Admin")
        if not users.add_user(NAME, "First", "Administrator", f"{NAME}@localhost", role, password):
            raise SystemExit("Airflow's first administrator could not be created; the log above says why.")
        return password


def main() -> None:
    """Create the administrator where there is no user, and say what the password is."""
    logging.disable(logging.WARNING)  # the password must not drown
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):  # roles and permissions, by the hundred
        password = first_admin()
    if password is None:
        sys.stdout.write("Airflow has users already; none was added.\n")
        return
    sys.stdout.write(
        f"Airflow's first administrator is `{NAME}`, the password {password}\n"
        "It is shown this once. Change it under the user's menu, or by `airflow users reset-password`.\n"
    )


if __name__ == "__main__":
    main()
