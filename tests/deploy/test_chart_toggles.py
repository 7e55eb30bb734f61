"""What single values of the chart do to the manifests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.charts import CASES, CHART, SHARED, Manifest, helm, manifests, of_kind, only, rendered, template
from pcs_backend import __version__

pytestmark = [pytest.mark.slow]


def environment_of(case: str) -> dict[str, str]:
    (config,) = (
        one for one in of_kind(rendered(case), "ConfigMap") if one["metadata"]["name"].endswith("-env")
    )
    return config["data"]


def backend_of(case: str, track: str = "stable") -> Manifest:
    return only(
        [one for one in of_kind(rendered(case), "StatefulSet") if one["metadata"]["labels"]["track"] == track]
    )


def wanted_keys(case: str) -> dict[str, bool]:
    """Return the keys of the Secret that the pods ask for, and whether each may be absent."""
    (asked,) = backend_of(case)["spec"]["template"]["spec"]["containers"]
    references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in asked.get("env", [])}
    assert all(reference["key"] == name for name, reference in references.items())
    return {name: reference.get("optional", False) for name, reference in references.items()}


@pytest.mark.parametrize(
    ("case", "keys"),
    [
        (
            "defaults",
            {"PCS_HMAC_KEY": False, "PCS_HMAC_KEYS": True, "METRICS_USER": False, "METRICS_PASS": False},
        ),
        ("signing off", {"METRICS_USER": False, "METRICS_PASS": False}),
        ("ed25519", {"PCS_ED25519_PUB_B64": False, "METRICS_USER": False, "METRICS_PASS": False}),
        (
            "gate",
            {
                "PCS_HMAC_KEY": False,
                "PCS_HMAC_KEYS": True,
                "METRICS_USER": False,
                "METRICS_PASS": False,
                "CALIBRATION_USER": False,
                "CALIBRATION_PASS": False,
            },
        ),
        ("metrics open", {"PCS_HMAC_KEY": False, "PCS_HMAC_KEYS": True}),
        ("nothing secret", {}),
        (
            "production",
            {
                "PCS_ED25519_PUB_B64": True,
                "POSTGRES_DSN": False,
                "METRICS_USER": False,
                "METRICS_PASS": False,
            },
        ),
    ],
)
def test_pods_ask_for_the_secrets_that_the_toggles_need(case: str, keys: dict[str, bool]) -> None:
    assert wanted_keys(case) == keys


def test_signing_toggles() -> None:
    names = ("PCS_SIGN_ALG", "ALLOW_UNSIGNED")
    assert [environment_of("defaults")[name] for name in names] == ["hmac", "false"]
    assert [environment_of("ed25519")[name] for name in names] == ["ed25519", "false"]
    assert [environment_of("signing off")[name] for name in names] == ["none", "true"]


def test_a_redis_address_is_in_one_place() -> None:
    assert environment_of("redis")["REDIS_ADDR"] == "redis:6379"
    assert "REDIS_ADDR" not in wanted_keys("redis")
    assert "REDIS_ADDR" not in environment_of("redis by secret")
    assert wanted_keys("redis by secret")["REDIS_ADDR"] is False


@pytest.mark.parametrize(
    ("values", "port"),
    [
        ({"env": {"dedupBackend": "memory"}}, None),
        ({"env": {"dedupBackend": "redis", "redisAddr": "redis:6400"}}, 6400),
        ({"env": {"dedupBackend": "redis", "redisAddr": "rediss://redis.plant:6401/2"}}, 6401),
        ({"env": {"dedupBackend": "redis", "redisAddr": "redis://redis"}}, 6379),
        ({"env": {"dedupBackend": "postgres"}}, 5432),
        ({"env": {"dedupBackend": "postgres"}, "networkPolicy": {"store": {"port": 6432}}}, 6432),
        ({"tracing": {"endpoint": "http://collector:4318/"}}, 4318),
        ({"tracing": {"endpoint": "https://collector"}}, 443),
    ],
)
def test_a_pod_may_reach_dns_and_what_is_named_alone(values: dict[str, Any], port: int | None) -> None:
    policies = of_kind(manifests(template(values).output), "NetworkPolicy")
    egress = policies[0]["spec"]["egress"]
    assert [[each["port"] for each in rule["ports"]] for rule in egress] == (
        [] if port is None else [[53, 53], [port]]
    )


def test_who_may_come_in() -> None:
    def comers(case: str) -> list[dict[str, Any]]:
        return of_kind(rendered(case), "NetworkPolicy")[0]["spec"]["ingress"][0]["from"]

    test = {"app.kubernetes.io/component": "test", "app.kubernetes.io/instance": "pcs-verification"}
    test |= {"app.kubernetes.io/name": "pcs-verification"}
    (alone,) = comers("defaults")
    assert alone == {"podSelector": {"matchLabels": test}}
    assert comers("agents") == [{"podSelector": {"matchLabels": {"app": "agent"}}}, alone]
    names = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in comers("production")[:-1]
    ]
    assert names == ["plants", "ingress-nginx", "monitoring"]


def test_an_autoscaled_set_names_no_replicas() -> None:
    assert "replicas" not in backend_of("autoscaling")["spec"]
    assert backend_of("redis")["spec"]["replicas"] == 3


def test_time_to_end_is_what_the_stop_may_take() -> None:
    values = SHARED | {"drain": {"endpointSeconds": 7, "settleSeconds": 40}}
    values["env"] = values["env"] | {"drainTimeoutS": 20.5}
    backend = only(of_kind(manifests(template(values).output), "StatefulSet"))
    assert (
        backend["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 124
    )  # 7 + 40 + 3 × 20.5 + 15, up


def test_a_setting_changes_the_pods_and_the_number_of_replicas_does_not() -> None:
    def stamps(values: dict[str, Any]) -> dict[str, str]:
        backend = only(of_kind(manifests(template(SHARED | values).output), "StatefulSet"))
        return backend["spec"]["template"]["metadata"]["annotations"]

    assert stamps({"replicaCount": 2}) == stamps({"replicaCount": 3})
    assert stamps({"params": 'version = "1"\n'}) != stamps({"params": 'version = "2"\n'})


def test_mutual_tls_at_the_ingress() -> None:
    nginx = only(of_kind(rendered("ingress, mutual TLS"), "Ingress"))["metadata"]["annotations"]
    assert nginx["nginx.ingress.kubernetes.io/auth-tls-secret"] == "plant/pcs-client-ca"
    assert nginx["nginx.ingress.kubernetes.io/auth-tls-verify-client"] == "on"
    assert nginx["nginx.ingress.kubernetes.io/proxy-body-size"] == "16777216"
    options = only(of_kind(rendered("traefik, mutual TLS"), "TLSOption"))
    ingress = only(of_kind(rendered("traefik, mutual TLS"), "Ingress"))["metadata"]
    named = ingress["annotations"]["traefik.ingress.kubernetes.io/router.tls.options"]
    assert named == f"plant-{options['metadata']['name']}@kubernetescrd"
    assert options["spec"]["clientAuth"]["secretNames"] == ["pcs-client-ca"]


def test_a_canary_stands_beside_the_others_behind_one_service() -> None:
    canary, stable = backend_of("canary", "canary"), backend_of("canary")
    images = [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in (canary, stable)]
    assert images == ["pcs-backend:0.2.0", f"pcs-backend:{__version__}"]
    assert canary["metadata"]["name"] != stable["metadata"]["name"]
    assert [one["spec"]["replicas"] for one in (canary, stable)] == [1, 1]


def test_the_image_of_a_canary_is_not_overruled_by_the_others_digest() -> None:
    values = SHARED | {"image": {"digest": "sha256:" + "a" * 64}}
    values |= {"canary": {"enabled": True, "image": {"tag": "0.2.0"}}}
    found = of_kind(manifests(template(values).output), "StatefulSet")
    images = {
        one["metadata"]["labels"]["track"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in found
    }
    assert images == {"stable": "pcs-backend@sha256:" + "a" * 64, "canary": "pcs-backend:0.2.0"}


@pytest.mark.parametrize(
    ("case", "hook", "wait_s"),
    [("canary", "post-install,post-upgrade", 900), ("promotion", "pre-upgrade", 0)],
)
def test_the_gate_stands_where_it_can_stop_an_upgrade(case: str, hook: str, wait_s: int) -> None:
    job = only(of_kind(rendered(case), "Job"))
    assert job["metadata"]["annotations"]["helm.sh/hook"] == hook
    plan = json.loads(job["spec"]["template"]["spec"]["containers"][0]["args"][1])
    assert plan["wait_s"] == wait_s
    assert (job["spec"]["backoffLimit"], job["spec"]["template"]["spec"]["restartPolicy"]) == (0, "Never")


def test_volumes_are_settled_with_the_environment_of_the_service() -> None:
    job = only(of_kind(rendered("volumes to settle"), "Job"))["spec"]["template"]["spec"]
    backend = backend_of("volumes to settle")["spec"]["template"]["spec"]
    assert job["volumes"][0] == {
        "name": "data",
        "persistentVolumeClaim": {"claimName": "data-pcs-verification-3"},
    }
    (settling,), (serving,) = job["containers"], backend["containers"]
    assert settling["command"] == ["pcs-backend", "replay"]
    assert [settling[name] for name in ("image", "env", "envFrom")] == [
        serving[name] for name in ("image", "env", "envFrom")
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ["PCS_HMAC_KEY\n", "METRICS_USER\n", "Nobody can submit yet", "The store is memory"]),
        ({"signing": {"enabled": False}}, ["WARNING: signing.enabled is false"]),
        ({"metricsBasicAuth": {"enabled": False}}, ["WARNING: metricsBasicAuth.enabled is false"]),
        ({"networkPolicy": {"enabled": False}}, ["WARNING: networkPolicy.enabled is false"]),
        ({"signing": {"keysFile": True}}, ["keys.toml"]),
        (CASES["ingress"], ["https://pcs.example/v1/pcs/submit"]),
        (CASES["canary"], ["A canary runs pcs-backend:0.2.0"]),
    ],
)
def test_notes_say_what_is_left_to_do(values: dict[str, Any], said: list[str]) -> None:
    done = helm(
        "install", "pcs-verification", str(CHART), "--dry-run=client", "--namespace", "plant", values=values
    )
    assert done.code == 0, done.error
    notes = done.output.partition("\nNOTES:\n")[2]
    assert [each for each in said if each not in notes] == []
    assert ("WARNING" in notes) == any("WARNING" in each for each in said)
