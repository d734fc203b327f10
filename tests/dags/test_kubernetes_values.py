"""The values for Airflow's Helm chart: keys that the chart knows, settings that Airflow knows, and what must hold.

Neither Helm nor a cluster is here. Keys are compared with a table of facts about the chart, what goes into pods as it
is with the models of Kubernetes' own client, and `config` with the options of the Airflow that is installed.
"""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes.client import models as k8s

from nightscore.errors import near_miss

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/kubernetes/values.yaml"
VALUES = yaml.safe_load(FILE.read_text())
FACTS = yaml.safe_load((Path(__file__).parent / "chart/keys.yaml").read_text())
GUIDE = (ROOT / "docs/kubernetes.md").read_text()

KEYS = {
    f"{section}.{key}".lstrip("."): kind
    for section, groups in FACTS["keys"].items()
    for group in groups
    for key, kind in group.items()
}
PROBE = {"initialDelaySeconds", "timeoutSeconds", "failureThreshold", "periodSeconds", "command", "scheme"}
PODS = ("workers.kubernetes", "scheduler", "dagProcessor", "triggerer", "apiServer", "migrateDatabaseJob", "cleanup")


def faults(values):
    """Return what the chart or Kubernetes would not take, `config` aside."""
    return list(_walk({key: value for key, value in values.items() if key != "config"}, ""))


def _walk(value, path):
    if path in KEYS:
        yield from _check(KEYS[path], value, path)
    elif isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}".lstrip("."))
    else:
        yield f"{path}: unknown key. {near_miss(path, list(KEYS))}"


def _check(kind, value, path):
    if kind.startswith(("list of ", "templated ")):
        items = yaml.safe_load(value) if kind.startswith("templated ") else value
        for number, item in enumerate(items):
            yield from _check_model(kind.rsplit(" ", 1)[-1], item, f"{path}[{number}]")
    elif kind.startswith("V1"):
        yield from _check_model(kind, value, path)
    elif kind == "probe":
        yield from (f"{path}.{key}: unknown key" for key in set(value) - PROBE)
    elif kind == "strings":
        yield from (f"{path}.{key}: not text" for key, text in value.items() if not isinstance(text, str))
    elif type(value).__name__ != kind:
        yield f"{path}: {value!r} is not {kind}"


def _check_model(name, value, path):
    """Yield what a model of Kubernetes' client does not know: its own deserialiser would drop it without a word."""
    if list_of := re.fullmatch(r"list\[(.+)\]", name):
        for number, item in enumerate(value):
            yield from _check_model(list_of[1], item, f"{path}[{number}]")
    elif name == "dict[str, str]":
        yield from (f"{path}.{key}: {item!r} is not text" for key, item in value.items() if not isinstance(item, str))
    elif name in ("str", "int", "bool"):
        if type(value).__name__ != name:
            yield f"{path}: {value!r} is not {name}"
    elif name.startswith("V1"):
        model = getattr(k8s, name)
        attributes = {key: attribute for attribute, key in model.attribute_map.items()}
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is not a mapping"
            return
        for key, item in value.items():
            if key not in attributes:
                yield f"{path}.{key}: unknown key. {near_miss(key, list(attributes))}"
            else:
                yield from _check_model(model.openapi_types[attributes[key]], item, f"{path}.{key}")
    else:
        assert name == "object", name  # a number or a text, which Kubernetes takes either way


def at(path):
    """Return the value at a path of keys joined by dots."""
    value = VALUES
    for key in path.split("."):
        value = value[key]
    return value


def test_the_chart_knows_every_key():
    assert len(KEYS) > 100
    assert faults(VALUES) == []


@pytest.mark.parametrize(
    ("path", "key", "value", "fault"),
    [
        ("", "schedular", {"replicas": 2}, "schedular.replicas: unknown key. Did you mean `scheduler.replicas`?"),
        ("scheduler", "replica", 2, "scheduler.replica: unknown key. Did you mean `scheduler.replicas`?"),
        ("scheduler", "replicas", "2", "scheduler.replicas: '2' is not int"),
        ("apiServer.resources", "request", {}, "apiServer.resources.request: unknown key. Did you mean `requests`?"),
        ("apiServer.resources.limits", "memory", 2, "apiServer.resources.limits.memory: 2 is not text"),
        (
            "workers.kubernetes.securityContexts.container",
            "readOnlyRootFileSystem",
            True,
            "workers.kubernetes.securityContexts.container.readOnlyRootFileSystem: unknown key. Did you mean ",
        ),
        ("scheduler.startupProbe", "delaySeconds", 1, "scheduler.startupProbe.delaySeconds: unknown key"),
        (
            "",
            "volumes",
            [{"name": "tmp", "emptydir": {}}],
            "volumes[0].emptydir: unknown key. Did you mean `emptyDir`?",
        ),
        (
            "",
            "extraEnvFrom",
            "- configMapReference: {name: a}",
            "extraEnvFrom[0].configMapReference: unknown key. Did you mean `configMapRef`?",
        ),
        (
            "apiServer.networkPolicy.ingress",
            "from",
            [{"ipBlock": {"cidrs": "10.0.0.0/8"}}],
            "apiServer.networkPolicy.ingress.from[0].ipBlock.cidrs: unknown key. Did you mean `cidr`?",
        ),
        ("logs.persistence", "existingclaim", "x", "logs.persistence.existingclaim: unknown key. Did you mean "),
    ],
)
def test_a_key_that_is_misspelt_is_found(path, key, value, fault):
    values = json.loads(json.dumps(VALUES))  # a deep copy would still share what the file names by anchors
    part = values
    for name in filter(None, path.split(".")):
        part = part[name]
    part[key] = value
    found = faults(values)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_airflow_knows_every_setting():
    from airflow.configuration import conf

    known = conf.configuration_description
    unknown = [
        f"{section}.{option}"
        for section, options in VALUES["config"].items()
        for option in options
        if option not in known.get(section, {}).get("options", {})
    ]
    assert unknown == []
    assert sum(len(options) for options in VALUES["config"].values()) >= 15
    assert "schedular_idle_sleep_time" not in known["scheduler"]["options"]


def test_airflows_version_is_that_of_the_lock_file():
    [version] = re.findall(r"^apache-airflow==([^\s\\]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert VALUES["airflowVersion"] == version


def test_one_version_of_the_chart_is_meant_everywhere():
    [shown] = set(re.findall(r"--version (\S+)", FILE.read_text() + GUIDE))
    assert shown == FACTS["chart"]
    assert f"apache-airflow/airflow {shown}." in FILE.read_text()


def test_nothing_secret_is_a_value():
    def texts(value, path=""):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from texts(inner, f"{path}.{key}".lstrip("."))
        if not items:
            yield path, value

    secret = [path for path, _ in texts(VALUES) if re.search(r"(?i)password|secret|key$|token$", path)]
    named = [path for path in secret if path.endswith("SecretName")]
    switches = [path for path in secret if path.endswith("automountServiceAccountToken")]
    assert sorted(secret) == sorted([*named, *switches])
    assert len(named) == 4
    for path in named:
        assert f"create secret generic {at(path)} " in GUIDE, path
    for name in (at("logs.persistence.existingClaim"), "nightscore-settings"):
        assert f"name: {name}" in GUIDE or f"configmap {name} " in GUIDE


def test_no_user_is_made_and_users_must_sign_in():
    assert at("createUserJob.enabled") is False
    assert at("config.core.auth_manager").endswith("FabAuthManager")


@pytest.mark.parametrize("name", PODS)
def test_every_pod_runs_as_nobody_special_and_cannot_change_its_image(name):
    contexts = [at(f"{name}.securityContexts.container")]
    contexts += [
        side["securityContexts"]["container"]
        for key, side in at(name).items()
        if key in ("waitForMigrations", "logGroomerSidecar") and side["enabled"]
    ]
    for context in contexts:
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
    pod = at(f"{name}.securityContexts.pod")
    assert (pod["runAsNonRoot"], pod["runAsUser"]) == (True, 50000)
    assert at("volumeMounts") == [{"name": "tmp", "mountPath": "/tmp"}]  # where it may write


@pytest.mark.parametrize("name", PODS)
def test_every_pod_asks_for_what_it_needs_and_has_a_bound_on_memory(name):
    resources = at(f"{name}.resources")
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]


@pytest.mark.parametrize("name", ["scheduler", "triggerer", "apiServer"])
def test_a_node_can_be_emptied_and_somebody_stays(name):
    part = at(name)
    assert part["replicas"] >= 2
    assert part["podDisruptionBudget"] == {"enabled": True, "config": {"maxUnavailable": 1}}


def test_tasks_reach_the_api_server():
    url = urlsplit(at("config.core.execution_api_server_url"))
    assert url.hostname == f"{at('fullnameOverride')}-api-server"
    assert at("useStandardNaming") is True
    ingress = at("apiServer.networkPolicy.ingress")
    assert {"port": url.port} in ingress["ports"]
    assert {"podSelector": {"matchLabels": {"tier": "airflow"}}} in ingress["from"]


def test_who_reads_the_warehouse_is_the_scorer_and_nobody_else():
    annotation = "iam.gke.io/gcp-service-account"
    accounts = {
        name: at(name).get("serviceAccount", {}).get("annotations", {}).get(annotation)
        for name in PODS
        if annotation in at(name).get("serviceAccount", {}).get("annotations", {})
    }
    assert set(accounts) == {"workers.kubernetes", "triggerer"}
    assert len(set(accounts.values())) == 1


def test_scripts_of_airflows_own_image_are_not_called():
    """Ours has no /entrypoint and no /clean-logs; where the chart would start one, it is turned off or replaced."""
    for name in ("scheduler", "dagProcessor", "triggerer"):
        groomer = at(f"{name}.logGroomerSidecar")
        assert not groomer["enabled"] or groomer["args"][:2] == ["bash", "-c"]
    assert not any("/clean-logs" in line for line in FILE.read_text().splitlines())
