"""The settings: is every variable well formed, does every NIGHTSCORE_ name mean something, do the folders exist?"""

import difflib
from collections.abc import Iterator

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, ok, warning
from nightscore.errors import ConfigurationError, counted
from nightscore.registry.signing import read_signers
from nightscore.settings import LOCAL_DIR, LOCAL_ENV, VARIABLES, SettingError

PREFIX = "NIGHTSCORE_"
SECRET = ("NIGHTSCORE_SIGNING_PASSWORD", "NIGHTSCORE_MLFLOW_TRACKING_URI")


def check_settings(deployment: Deployment) -> Iterator[Finding]:
    """Look at the environment, without asking any server."""
    given = {name: value for name, value in deployment.environment.items() if name.startswith(PREFIX) and value}
    yield from (_unknown(name) for name in sorted(given) if name not in VARIABLES)
    if isinstance(deployment.settings, SettingError):
        fix = f"Set {deployment.settings.variable} where this process gets its environment from."
        yield fault("variables", str(deployment.settings), fix)
        return
    config = deployment.settings
    known = {name: "(hidden)" if name in SECRET else value for name, value in given.items() if name in VARIABLES}
    shown = ", ".join(f"{name}={value}" for name, value in sorted(known.items()))
    if config.is_local and "NIGHTSCORE_PROJECT" not in given:
        shown = f"local servers, by {LOCAL_DIR}/{LOCAL_ENV}" + (f"; {shown}" if shown else "")
    yield ok("variables", shown)
    if deployment.folder.is_dir():
        yield ok("pipelines' folder", f"{deployment.folder}: {counted(len(deployment.items), 'pipeline')}")
    else:
        found = f"There is no folder {deployment.folder}, so this process knows no pipelines."
        fix = "NIGHTSCORE_PIPELINES_DIR=…/dags/pipelines, or NIGHTSCORE_HOME=… for the folder above dags"
        yield warning("pipelines' folder", found, fix)
    if config.trusted_signers is not None:
        try:
            signers = read_signers(config.trusted_signers)
        except ConfigurationError as error:
            fix = "Put the signers' public keys there, or unset the variable."
            yield fault("trusted signers", str(error), fix)
        else:
            yield ok("trusted signers", f"{config.trusted_signers}: {', '.join(signer.name for signer in signers)}")


def _unknown(name: str) -> Finding:
    own = {known.removeprefix(PREFIX): known for known in VARIABLES}  # what all have in common is no likeness
    near = [own[word] for word in difflib.get_close_matches(name.removeprefix(PREFIX), own, n=1, cutoff=0.6)]
    fix = f"Did you mean {near[0]}? Rename it." if near else "Remove it."
    return warning(name, "Nothing reads this variable.", fix)
