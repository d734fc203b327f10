"""The bucket's settings: what protects the registry, and what keeps runs from piling up."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, not_checked, ok, warning
from nightscore.doctor.local_checks import LOCAL
from nightscore.errors import counted, shorten
from nightscore.objects import Json, ObjectAccessError


def check_bucket(deployment: Deployment) -> Iterator[Finding]:
    """Compare the bucket with what nightscore relies on."""
    config, bucket = deployment.config, deployment.services.bucket
    uri = f"gs://{bucket.name}"
    try:
        found = bucket.settings()
    except ObjectAccessError as error:
        yield not_checked("bucket", f"its settings may not be read, see permissions: {shorten(error, 200)}")
        return
    if found is None:
        create = f"gcloud storage buckets create {uri} --project={config.project} --location={config.location}"
        fix = "nightscore local up" if config.is_local else f"{create} --uniform-bucket-level-access"
        yield fault("bucket", f"There is no bucket {uri}.", fix)
        return
    if config.is_local:
        yield not_checked("bucket", LOCAL)
        return
    yield _location(config.location, uri, found)
    update = f"gcloud storage buckets update {uri}"
    access = found.get("iamConfiguration", {})
    if found.get("versioning", {}).get("enabled"):
        yield ok("versioning", "on")
    else:
        text = f"{uri} keeps no earlier versions: an alias or a model that was overwritten or deleted is lost."
        yield fault("versioning", text, f"{update} --versioning")
    if access.get("uniformBucketLevelAccess", {}).get("enabled"):
        yield ok("uniform access", "on")
    else:
        text = f"Objects of {uri} may have access lists of their own, which no policy shows."
        yield warning("uniform access", text, f"{update} --uniform-bucket-level-access")
    if access.get("publicAccessPrevention") == "enforced":
        yield ok("public access", "prevented")
    else:
        text = f"Nothing keeps {uri} from being made public but an organisation policy, if there is one."
        yield warning("public access", text, f"{update} --public-access-prevention")
    yield _lifecycle(uri, found)
    yield _soft_delete(update, found)


def _location(wanted: str, uri: str, found: Json) -> Finding:
    """BigQuery loads into a dataset only from buckets near it; into one in US, from anywhere."""
    here, there = str(found["location"]).upper(), wanted.upper()
    if there in (here, "US") or (there == "EU" and here.startswith("EUROPE-")):
        return ok("location", f"{uri} is in {here}, the datasets in {there}")
    text = f"{uri} is in {here}, the datasets in {there}: BigQuery refuses to load the predictions."
    fix = f"Make a bucket in {wanted}, copy {uri}/registry into it (gcloud storage cp -r), and set NIGHTSCORE_BUCKET."
    if found.get("locationType") in ("dual-region", "multi-region"):
        return warning(
            "location", f"{uri} is in {here}, the datasets in {there}: BigQuery loads if {here} contains {there}.", fix
        )
    return fault("location", text, fix)


@cache
def _wanted_rules() -> list[Json]:
    content: Json = json.loads(files("nightscore").joinpath("schemas/lifecycle.json").read_text())
    return list(content["rule"])


def _lifecycle(uri: str, found: Json) -> Finding:
    there = [_comparable(rule) for rule in found.get("lifecycle", {}).get("rule", [])]
    lacking = [rule for rule in _wanted_rules() if _comparable(rule) not in there]
    if not lacking:
        return ok("lifecycle", f"{counted(len(there), 'rule')}, with those that nightscore needs")
    words = "; ".join(_words(rule) for rule in lacking)
    path = files("nightscore").joinpath("schemas/lifecycle.json")
    fix = f"gcloud storage buckets update {uri} --lifecycle-file={path} (which replaces all rules: add yours to a copy)"
    return warning("lifecycle", f"Rules are missing: {words}.", fix)


def _comparable(rule: Json) -> str:
    condition = {key: sorted(value) if isinstance(value, list) else value for key, value in rule["condition"].items()}
    return json.dumps([rule["action"]["type"], condition], sort_keys=True)


def _words(rule: Json) -> str:
    condition = ", ".join(f"{name} {value}" for name, value in rule["condition"].items())
    return f"{rule['action']['type']} where {condition}".replace("'", "").replace("[", "").replace("]", "")


def _soft_delete(update: str, found: Json) -> Finding:
    seconds = int(found.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0))
    if seconds:
        return ok("soft delete", f"{seconds / 86400:g} days")
    text = "Soft delete is off: a bucket that somebody deletes with its objects cannot be restored."
    return warning("soft delete", text, f"{update} --soft-delete-duration=7d")
