"""Who may talk to whom, once the chart is installed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.kubernetes import charts
from tests.infra.kubernetes.networks import Place, allowed

POLICIES = [
    one for one in charts.objects(charts.values("whole")) if one["kind"] == "NetworkPolicy"
]


def part(name: str) -> Place:
    return Place(
        "modelyard",
        {
            "app.kubernetes.io/name": "modelyard",
            "app.kubernetes.io/instance": "modelyard",
            "app.kubernetes.io/component": name,
        },
    )


def run(flow: str = "train", kind: str = "run", namespace: str = "trainings") -> Place:
    labels = {
        "app.kubernetes.io/managed-by": "modelyard",
        "modelyard/flow": flow,
        "modelyard/part": kind,
    }
    return Place(namespace, labels)


PLACES = {
    **{name: part(name) for name in ("prefect", "mlflow", "web", "scheduler", "worker", "deploy")},
    "run": run(),
    "pipeline": run("pipeline-run"),
    "component": run("pipeline-run", "component"),
    "database": Place(address="10.0.0.5"),
    "storage": Place(address="10.0.0.6"),
    "api": Place(address="10.0.0.1"),
    "world": Place(address="203.0.113.7"),
    "stranger": Place("modelyard", {"app": "stranger"}),
    "neighbour": Place("elsewhere", run().labels),
    "ingress": Place("ingress", {"app": "proxy"}),
    "dns": Place("kube-system", {"k8s-app": "kube-dns"}),
}
PORTS = {"prefect": 4200, "mlflow": 5000, "web": 4300, "database": 5432, "storage": 443,
         "api": 6443, "world": 443, "run": 29500, "dns": 53}  # fmt: skip
OF_RUNS = {"prefect", "mlflow", "database", "storage", "run", "dns"}
GOES_TO = {
    "prefect": {"database", "dns"},
    "mlflow": {"database", "storage", "dns"},
    "web": {"prefect", "mlflow", "database", "storage", "dns"},
    "scheduler": {"prefect", "mlflow", "database", "dns"},
    "worker": {"prefect", "mlflow", "database", "api", "dns"},
    "deploy": {"prefect", "mlflow", "database", "dns", "api"},
    "run": OF_RUNS,
    "component": OF_RUNS,
    "pipeline": OF_RUNS | {"api"},
    "ingress": {"prefect", "mlflow", "web", "database", "storage", "api", "world", "dns"},
    # Others go where they like, but for what is ours.
    "stranger": {"database", "storage", "api", "world", "dns"},
    "neighbour": {"database", "storage", "api", "world", "dns"},
    "world": {"database", "storage", "api", "world", "dns"},
}


@pytest.mark.parametrize("here", GOES_TO)
def test_each_goes_where_it_must_and_nowhere_else(here: str) -> None:
    reached = {
        there
        for there, port in PORTS.items()
        if allowed(POLICIES, PLACES[here], PLACES[there], port)
    }

    assert reached == GOES_TO[here]


@pytest.mark.parametrize("server", ["prefect", "mlflow", "web"])
def test_a_server_is_reached_at_its_own_port_alone(server: str) -> None:
    assert allowed(POLICIES, PLACES["ingress"], PLACES[server], PORTS[server])
    assert not allowed(POLICIES, PLACES["ingress"], PLACES[server], 22)
    assert not allowed(POLICIES, PLACES["ingress"], PLACES[server], PORTS[server], "UDP")


def test_names_are_resolved_by_udp_too() -> None:
    for here in ("prefect", "worker", "deploy", "run", "component"):
        assert allowed(POLICIES, PLACES[here], PLACES["dns"], 53, "UDP")
        assert allowed(POLICIES, PLACES[here], Place(address="169.254.20.10"), 53, "UDP")
        assert not allowed(POLICIES, PLACES[here], PLACES["dns"], 9153)


def test_a_part_without_a_rule_of_its_own_is_shut_in() -> None:
    unknown = part("something-new")

    assert not any(allowed(POLICIES, unknown, PLACES[to], port) for to, port in PORTS.items())
    assert not allowed(POLICIES, PLACES["worker"], unknown, 80)


def test_runs_reach_what_the_values_add() -> None:
    index: dict[str, Any] = {
        "to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
        "ports": [{"protocol": "TCP", "port": 443}],
    }
    found = charts.objects(charts.values("least", networkPolicy={"runsEgress": [index]}))
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]
    here = run(namespace="modelyard")

    assert allowed(policies, here, PLACES["world"], 443)
    assert not allowed(policies, here, PLACES["world"], 80)


def test_prefect_reaches_the_targets_of_notifications_that_the_values_add() -> None:
    mail: dict[str, Any] = {
        "to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
        "ports": [{"protocol": "TCP", "port": 587}],
    }
    found = charts.objects(charts.values("least", networkPolicy={"notificationsEgress": [mail]}))
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]

    assert allowed(policies, part("prefect"), PLACES["world"], 587)
    assert not allowed(policies, part("prefect"), PLACES["world"], 443)
    assert not allowed(policies, part("mlflow"), PLACES["world"], 587)
    assert not allowed(POLICIES, part("prefect"), PLACES["world"], 587)


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://minio.minio.svc:9000", 9000), ("http://minio.minio.svc", 80),
     ("https://storage.example", 443), ("https://[fd00::1]:9000", 9000)],
)  # fmt: skip
def test_the_storages_own_port_is_open(endpoint: str, port: int) -> None:
    storage = {"artifacts": "s3://models/mlflow", "endpoint": endpoint}
    found = charts.objects(charts.values("least", storage=storage))
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]

    for here in (part("mlflow"), part("web"), run(namespace="modelyard")):
        assert allowed(policies, here, PLACES["storage"], port)
        assert not allowed(policies, here, PLACES["storage"], 9001)


def test_by_default_nobody_comes_in_from_outside() -> None:
    found = charts.objects(charts.values("least"))
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]

    for server in ("prefect", "mlflow", "web"):
        assert not allowed(policies, PLACES["ingress"], PLACES[server], PORTS[server])
        assert not allowed(policies, PLACES["stranger"], PLACES[server], PORTS[server])
    assert allowed(policies, run(namespace="modelyard"), PLACES["prefect"], 4200)


def test_without_policies_nothing_is_refused() -> None:
    found = charts.objects(charts.values("least", networkPolicy={"enabled": False}))

    assert not [one for one in found if one["kind"] == "NetworkPolicy"]
