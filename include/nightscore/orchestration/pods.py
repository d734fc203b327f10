"""What a spec's `resources` are for Airflow's KubernetesExecutor: what a task's pod has that its template has not."""

import functools
from typing import Any

from airflow.sdk import get_parsing_context
from airflow.sdk.configuration import conf

from nightscore.spec import TaskResources


def executor_config(resources: TaskResources | None) -> dict[str, Any]:
    """Return a task's `executor_config`; empty where the pod template alone decides, or no pod is started.

    The scheduler reads it in the serialised DAG. A task's own process needs none, nor does an executor without pods,
    and what it takes to make one is imported for neither: Kubernetes' client takes longer than a hundred DAGs.
    """
    if resources is None or get_parsing_context().dag_id is not None or not _starts_pods():
        return {}
    return {"pod_override": _pod(resources)}


def _starts_pods() -> bool:
    # One executor, or several with commas, by name or by path, perhaps with an alias or a team.
    return "KubernetesExecutor" in str(conf.get("core", "executor"))


@functools.lru_cache(maxsize=256)
def _pod(resources: TaskResources) -> Any:
    from kubernetes.client import models as k8s

    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.ephemeral_storage is not None:
        amounts["ephemeral-storage"] = resources.ephemeral_storage
    needed = k8s.V1ResourceRequirements(requests=amounts, limits=dict(amounts))
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=needed)]))
