"""The chart as Helm renders it, judged by the schemas of Kubernetes and by what it promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import typer.main
import yaml

import app
from app.cli import app as cli
from app.jobs import alive
from app.settings import Settings

CHART = Path(__file__).resolve().parent.parent.parent / "deploy" / "helm" / "task2vec"
KUBERNETES = ("1.27", "1.34")
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
EVERYTHING: dict[str, Any] = {
    "env": {"AWS_ENDPOINT_URL_S3": "https://s3.example.com", "TASK2VEC_DRAWS": 8},
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"example.com/role": "task2vec"}},
    "api": {
        "image": {"repository": "r.example.com/api", "digest": "sha256:" + "a" * 64},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
    },
    "worker": {"nodeSelector": {"pool": "gpu"}},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
}
LEAST: dict[str, Any] = {
    "blobSecret": "",
    "serviceAccount": {"create": False},
    "api": {"autoscaling": {"enabled": False}},
    "worker": {"gpus": 0, "device": "cpu", "autoscaling": {"enabled": False}},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
VARIANTS: dict[str, dict[str, Any]] = {"default": {}, "everything": EVERYTHING, "least": LEAST}


def rendered(values: dict[str, Any] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name without the release's."""
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render(values or {}, name="demo", namespace="team")
    documents = [
        document
        for path, text in files.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    return {
        (each["kind"], each["metadata"]["name"].removeprefix("demo-task2vec").strip("-")): each
        for each in documents
    }


def pods(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: each["spec"]["template"]
        for (kind, name), each in objects.items()
        if kind in ("Deployment", "Job")
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_has_nothing_to_say_against_it(variant: str) -> None:
    messages = helm.lint(str(CHART), values=VARIANTS[variant])
    assert [
        message for message in messages["messages"] if message["severity"] > 1
    ] == []  # 1: only told


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_what_kubernetes_takes(variant: str, version: str) -> None:
    objects = rendered(VARIANTS[variant])
    assert len(objects) >= 4
    for (kind, _), each in objects.items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


def test_the_least_has_no_kind_that_an_operator_must_bring() -> None:
    assert not {kind for kind, _ in rendered(LEAST)} & CUSTOM


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_pod_may_more_than_it_needs(variant: str) -> None:
    found = pods(rendered(VARIANTS[variant]))
    assert set(found) == {"api", "worker", "migrate"}
    for pod in found.values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_secret_comes_by_reference_only(variant: str) -> None:
    objects = rendered(VARIANTS[variant])
    assert not any(kind == "Secret" for kind, _ in objects)
    for pod in pods(objects).values():
        (container,) = pod["spec"]["containers"]
        named = {entry["name"] for entry in container["env"]}
        assert not named & {"TASK2VEC_DATABASE_URL", "AWS_SECRET_ACCESS_KEY"}
        assert {"secretRef": {"name": "task2vec-database"}} in container["envFrom"]


def test_every_setting_that_is_set_is_one() -> None:
    known = {f"TASK2VEC_{name.upper()}" for name in Settings.model_fields}
    for pod in pods(rendered(EVERYTHING)).values():
        (container,) = pod["spec"]["containers"]
        assert {
            entry["name"] for entry in container["env"] if entry["name"].startswith("TASK2VEC_")
        } <= known
    schema = json.loads((CHART / "values.schema.json").read_text())
    owned = schema["properties"]["env"]["propertyNames"]["not"]["enum"]
    assert {name for name in owned if name.startswith("TASK2VEC_")} <= known
    documented = re.findall(r"TASK2VEC_[A-Z_]+", (CHART / "values.yaml").read_text())
    assert set(documented) <= known


def test_what_pods_run_are_commands_with_such_options() -> None:
    commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]
    for pod in pods(rendered()).values():
        name, *options = pod["spec"]["containers"][0]["args"]
        known = {
            option
            for parameter in commands[name].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(options) <= known


def test_a_pod_is_given_longer_than_its_process_takes_to_leave() -> None:
    for grace in (0, 20, 600):
        for name in ("api", "worker"):
            pod = pods(rendered({"shutdownGraceSeconds": grace}))[name]
            (container,) = pod["spec"]["containers"]
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert env["TASK2VEC_SHUTDOWN_GRACE_SECONDS"] == str(grace)
            assert pod["spec"]["terminationGracePeriodSeconds"] >= grace + 10


def test_a_worker_has_one_gpu_and_says_on_its_own_whether_it_turns() -> None:
    (container,) = pods(rendered())["worker"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == ["python", "-m", alive.__name__]
    (least,) = pods(rendered(LEAST))["worker"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in least["resources"]["limits"]
    assert {"name": "TASK2VEC_DEVICE", "value": "cpu"} in least["env"]


def test_the_api_answers_its_probes_at_addresses_that_there_are(service: Any) -> None:
    (container,) = pods(rendered())["api"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert service.client.get(path).status_code == 200


def test_tables_are_migrated_before_anything_of_a_version_starts() -> None:
    objects = rendered()
    hook = objects["Job", "migrate"]["metadata"]["annotations"]
    assert hook["helm.sh/hook"] == "pre-install,pre-upgrade"
    # Its way to the database must be open by then, and nothing that a hook needs comes later.
    policy = objects["NetworkPolicy", "migrate"]["metadata"]["annotations"]
    assert policy["helm.sh/hook"] == hook["helm.sh/hook"]
    assert int(policy["helm.sh/hook-weight"]) < int(hook["helm.sh/hook-weight"])
    assert "serviceAccountName" not in pods(objects)["migrate"]["spec"]


def test_whoever_selects_pods_selects_some() -> None:
    objects = rendered(EVERYTHING)
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    for name in ("api", "worker"):
        for kind, where in (
            ("Deployment", ("selector", "matchLabels")),
            ("PodDisruptionBudget", ("selector", "matchLabels")),
            ("NetworkPolicy", ("podSelector", "matchLabels")),
        ):
            selector = objects[kind, name]["spec"][where[0]][where[1]]
            assert selector.items() <= labels[name].items()
            assert selector["app.kubernetes.io/component"] == name
    service = objects["Service", ""]
    assert service["spec"]["selector"].items() <= labels["api"].items()
    monitor = objects["ServiceMonitor", ""]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_workers_are_scaled_by_the_queue_and_the_api_by_its_work() -> None:
    objects = rendered()
    scaled = objects["ScaledObject", "worker"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == "demo-task2vec-worker"
    assert scaled["minReplicaCount"] == 0
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "prometheus"
    assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold"}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert "replicas" not in objects["Deployment", "worker"]["spec"]
    assert objects["HorizontalPodAutoscaler", "api"]["spec"]["scaleTargetRef"]["name"] == (
        "demo-task2vec-api"
    )
    assert rendered(LEAST)["Deployment", "worker"]["spec"]["replicas"] == 1


def test_alerts_are_those_that_are_tested() -> None:
    rules = rendered(EVERYTHING)["PrometheusRule", ""]["spec"]
    alerts = CHART.parent.parent / "prometheus" / "alerts.yaml"
    assert rules == yaml.safe_load(alerts.read_text())


@pytest.mark.parametrize(
    "values",
    [
        {"databaseUrl": "postgresql://u:p@h/d"},
        {"env": {"TASK2VEC_DATABASE_URL": "postgresql://u:p@h/d"}},
        {"env": {"AWS_SECRET_ACCESS_KEY": "x"}},
        {"worker": {"gpus": 2}},
        {"blobUrl": "file:///data"},
        {"api": {"replicas": 0}},
    ],
    ids=lambda values: json.dumps(values),
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        rendered(values)


def test_the_charts_version_is_the_services() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == app.__version__
