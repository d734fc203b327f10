"""What a spec's `resources` become: pods of Airflow's KubernetesExecutor, and nothing anywhere else."""

import json
from pathlib import Path

import pytest
import yaml

from nightscore.orchestration import pods
from nightscore.orchestration.factory import make_dag
from nightscore.specs import parse_spec

SPEC = (Path(__file__).parents[1] / "unit" / "specs" / "valid" / "everything.yaml").read_text()
SCORE = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi"}
REST = {"cpu": "500m", "memory": "1.5Gi"}
TEMPLATE = {"cpu": "250m", "memory": "1Gi", "ephemeral-storage": "1Gi"}


@pytest.fixture
def executor(monkeypatch):
    """Set Airflow's executor."""

    def choose(name):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", name)

    return choose


def serialised(dag):
    """Return a DAG as the scheduler reads it."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


def started(task, template=TEMPLATE):
    """Return the pod that the executor would ask Kubernetes for: the template's, with what the task says."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from kubernetes.client import models as k8s

    wanted = k8s.V1ResourceRequirements(requests=template, limits=template)
    container = k8s.V1Container(name="base", image="nightscore:1", resources=wanted)
    return PodGenerator.construct_pod(
        dag_id=task.dag_id,
        task_id=task.task_id,
        pod_id="pod",
        try_number=1,
        kube_image="nightscore:1",
        date=None,
        args=["airflow"],
        pod_override_object=PodGenerator.from_obj(task.executor_config),
        base_worker_pod=k8s.V1Pod(metadata=k8s.V1ObjectMeta(), spec=k8s.V1PodSpec(containers=[container])),
        namespace="nightscore",
        scheduler_job_id="1",
    )


def test_every_task_has_a_pod_of_the_size_that_the_spec_says(executor):
    executor("KubernetesExecutor")
    dag = serialised(make_dag(parse_spec("cards", SPEC)))
    assert {"wait", "plan", "score", "propose"} <= set(dag.task_dict)
    for task in dag.tasks:
        [container] = started(task).spec.containers
        expected = SCORE if task.task_id == "score" else REST
        assert container.resources.requests == expected, task.task_id
        assert container.resources.limits == expected, task.task_id
        assert (container.name, container.image, container.args) == ("base", "nightscore:1", ["airflow"])


def test_what_a_spec_does_not_say_is_the_templates(executor):
    executor("KubernetesExecutor")
    only_score = SPEC.replace("  rest: {cpu: 0.5, memory: 1.5Gi}\n", "")
    assert only_score != SPEC
    dag = serialised(make_dag(parse_spec("cards", only_score)))
    assert started(dag.get_task("plan")).spec.containers[0].resources.limits == TEMPLATE
    assert started(dag.get_task("score")).spec.containers[0].resources.limits == SCORE


def test_resources_stand_in_place_of_all_that_the_template_says():
    """Why a spec must name processors and memory: when Airflow merges them one by one, that can go."""
    from kubernetes.client import models as k8s

    class OnlyCpu:
        dag_id, task_id = "score_cards", "plan"
        resources = k8s.V1ResourceRequirements(limits={"cpu": "4"})
        spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=resources)])
        executor_config = {"pod_override": k8s.V1Pod(spec=spec)}  # noqa: RUF012

    assert started(OnlyCpu()).spec.containers[0].resources.limits == {"cpu": "4"}


@pytest.mark.parametrize("name", ["KubernetesExecutor", "CeleryExecutor,KubernetesExecutor", "team=KubernetesExecutor"])
def test_executors_with_pods(executor, name):
    executor(name)
    spec = parse_spec("cards", SPEC)
    assert set(pods.executor_config(spec.resources.score)) == {"pod_override"}
    assert pods.executor_config(None) == {}


@pytest.mark.parametrize("name", ["LocalExecutor", "CeleryExecutor"])
def test_other_executors_see_nothing_of_it(executor, name):
    executor(name)
    dag = make_dag(parse_spec("cards", SPEC))
    assert [task.task_id for task in dag.tasks if task.executor_config] == []


def test_a_tasks_own_process_makes_no_pods(executor, monkeypatch):
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID as WANTED

    executor("KubernetesExecutor")
    spec = parse_spec("cards", SPEC)
    assert pods.executor_config(spec.resources.score) != {}
    monkeypatch.setenv(WANTED, "score_cards")
    assert pods.executor_config(spec.resources.score) == {}


def test_the_executor_finds_the_pods_of_what_the_database_keeps(executor):
    """A task instance keeps its pod in a column of its own, which Airflow reads back before it starts the pod."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from airflow.utils.sqlalchemy import ExecutorConfigType
    from sqlalchemy.dialects import sqlite

    executor("KubernetesExecutor")
    task = serialised(make_dag(parse_spec("cards", SPEC))).get_task("score")
    column, dialect = ExecutorConfigType(), sqlite.dialect()
    kept = column.bind_processor(dialect)(task.executor_config)
    again = column.result_processor(dialect, None)(kept)
    assert PodGenerator.from_obj(again).spec.containers[0].resources.limits == SCORE


def test_with_the_values_for_the_chart_a_shard_is_big_and_still_confined(executor):
    """The pod template that the chart makes of our values, as far as it is ours, under a spec's resources."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from kubernetes.client import models as k8s

    executor("KubernetesExecutor")
    values = yaml.safe_load((Path(__file__).resolve().parents[2] / "deploy/kubernetes/values.yaml").read_text())
    workers = values["workers"]["kubernetes"]
    template = {
        "metadata": {"name": "placeholder-name"},
        "spec": {
            "serviceAccountName": workers["serviceAccount"]["name"],
            "securityContext": workers["securityContexts"]["pod"],
            "volumes": values["volumes"],
            "containers": [
                {
                    "name": "base",
                    "image": "nightscore:1",
                    "resources": workers["resources"],
                    "securityContext": workers["securityContexts"]["container"],
                    "volumeMounts": values["volumeMounts"],
                    "env": values["env"],
                }
            ],
        },
    }
    task = serialised(make_dag(parse_spec("cards", SPEC))).get_task("score")
    pod = PodGenerator.reconcile_pods(
        PodGenerator.deserialize_model_dict(template), PodGenerator.from_obj(task.executor_config)
    )
    [container] = pod.spec.containers
    assert isinstance(pod, k8s.V1Pod)
    assert container.resources.requests == container.resources.limits == SCORE
    assert container.security_context.read_only_root_filesystem is True
    assert [mount.mount_path for mount in container.volume_mounts] == ["/tmp"]
    assert pod.spec.service_account_name == "nightscore-scorer"
    assert pod.spec.security_context.run_as_user == 50000
    plain = serialised(make_dag(parse_spec("cards", SPEC.replace("  rest: {cpu: 0.5, memory: 1.5Gi}\n", ""))))
    assert PodGenerator.from_obj(plain.get_task("plan").executor_config) is None
