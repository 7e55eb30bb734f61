"""The chart as the real Helm renders it, for a matrix of values."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tools import tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "pcs-verification"
PRODUCTION = CHART / "values-production.yaml"
HELM_TIMEOUT_S = 60.0

Manifest = dict[str, Any]

SHARED = {"env": {"dedupBackend": "redis", "redisAddr": "redis:6379"}}
TLS = {"enabled": True, "secretName": "pcs-tls"}
CLIENT_AUTH = {"enabled": True, "caSecretName": "pcs-client-ca", "clientSecretName": "pcs-client"}
INGRESS = {"enabled": True, "host": "pcs.example", "tls": {"secretName": "pcs-ingress"}}
SECRET_VALUES = {"PCS_HMAC_KEY": "canary-of-the-chart", "METRICS_USER": "u", "METRICS_PASS": "canary-pass"}
CANARY = {"enabled": True, "image": {"tag": "0.2.0"}}
PARAMS = 'version = "2026-11"\ntol_d = 0.1\n'

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "signing off": {"signing": {"enabled": False}},
    "ed25519": {"signing": {"alg": "ed25519"}},
    "key file": {
        "signing": {"keysFile": True},
        "env": {"multiTenant": True, "requireMessageSignature": True},
    },
    "directions": {
        "signing": {"vrfPublicKeys": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
        "env": {"requireDirectionProof": True},
    },
    "gate": {
        "calibrationBasicAuth": {"enabled": True},
        "env": {"enableConformalGate": True, "calibrationRecalibrate": "manual", "calibrationDriftP": 0.01},
    },
    "metrics open": {"metricsBasicAuth": {"enabled": False}},
    "nothing secret": {
        "signing": {"enabled": False},
        "metricsBasicAuth": {"enabled": False},
        "secret": {"existing": ""},
    },
    "own secret": {"secret": {"create": True, "values": SECRET_VALUES}},
    "redis": SHARED | {"replicaCount": 3},
    "redis by secret": {"env": {"dedupBackend": "redis"}, "replicaCount": 2},
    "postgres": {"env": {"dedupBackend": "postgres", "workers": 2}, "replicaCount": 2},
    "parameters": {"params": PARAMS},
    "large numbers": {
        "env": {
            "bodiesMaxBytes": 2**40,
            "diskFreeMinBytes": 2**50,
            "memoryStoreMaxRecords": 100_000_000,
            "tokenRate": 1_000_000,
            "drainTimeoutS": 0.25,
            "messageSignatureMaxAgeS": 0.00001,
        }
    },
    "names": {
        "nameOverride": "summaries",
        "fullnameOverride": "a-name-of-just-the-forty-characters-00000"[:40],
    },
    "digest": {"image": {"digest": "sha256:" + "a" * 64, "pullSecrets": ["registry"]}},
    "TLS": {"tls": TLS, "serviceMonitor": {"enabled": True}},
    "mutual TLS": {
        "tls": TLS | {"clientAuth": CLIENT_AUTH | {"proxyName": "gateway"}},
        "serviceMonitor": {"enabled": True},
    },
    "ingress": {"ingress": INGRESS},
    "ingress, mutual TLS": {"ingress": INGRESS | {"mtls": {"enabled": True, "secretName": "pcs-client-ca"}}},
    "traefik": {"ingress": INGRESS | {"controller": "traefik"}, "tls": TLS},
    "traefik, mutual TLS": {
        "ingress": INGRESS
        | {"controller": "traefik", "mtls": {"enabled": True, "secretName": "pcs-client-ca"}}
    },
    "ingress of another controller": {
        "ingress": INGRESS | {"controller": "other", "annotations": {"example/annotation": "x"}}
    },
    "autoscaling": SHARED | {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 4}},
    "no policy, no budget": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": {"zone": "", "host": ""},
    },
    "agents": {"networkPolicy": {"agents": [{"podSelector": {"matchLabels": {"app": "agent"}}}]}},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "tracing": {"tracing": {"endpoint": "http://collector.monitoring:4318"}},
    "other service account": {"serviceAccount": {"create": False, "name": "given"}},
    "placement": {
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "pcs", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "persistence": {"storageClass": "fast", "accessMode": "ReadWriteOncePod", "annotations": {"c": "d"}},
        "service": {"type": "NodePort", "port": 80, "annotations": {"e": "f"}},
    },
    "canary": SHARED | {"canary": CANARY},
    "canary without gate": SHARED | {"canary": CANARY | {"gate": {"enabled": False}}},
    "promotion": SHARED | {"canary": {"promote": True}, "image": {"tag": "0.2.0"}},
    "volumes to settle": SHARED | {"settle": {"claims": ["data-pcs-verification-3"]}},
    "production": {},
}
"""What each case sets on top of the chart's values, or of values-production.yaml."""


class Helm(NamedTuple):
    """How a run of Helm ended."""

    code: int
    output: str
    error: str


def helm(*arguments: str, values: dict[str, Any] | None = None) -> Helm:
    """Run the real Helm to its end; values go to it on standard input."""
    options = ["--values", "-"] if values is not None else []
    done = subprocess.run(
        [tool("helm"), *arguments, *options],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        timeout=HELM_TIMEOUT_S,
        check=False,
    )
    return Helm(done.returncode, done.stdout, done.stderr)


def template(values: dict[str, Any], *options: str) -> Helm:
    """Render the chart as the release `pcs-verification` in the namespace `plant`."""
    return helm("template", "pcs-verification", str(CHART), "--namespace", "plant", *options, values=values)


def manifests(output: str) -> list[Manifest]:
    return [document for document in yaml.load_all(output, yaml.CSafeLoader) if document is not None]


@functools.cache
def rendered(case: str) -> tuple[Manifest, ...]:
    """Return the manifests of a case. Whoever changes one copies it first."""
    options = ["--values", str(PRODUCTION)] if case == "production" else []
    done = template(CASES[case], *options)
    assert done.code == 0, done.error
    return tuple(manifests(done.output))


def of_kind(found: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in found if manifest["kind"] == kind]


def only(found: list[Manifest]) -> Manifest:
    (one,) = found
    return one


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def materialise(
    release: Sequence[Manifest], pod: dict[str, Any], secrets: dict[str, dict[str, str]], folder: Path
) -> dict[str, str]:
    """Do for a pod's only container what the kubelet does: write its files, and return its environment.

    Args:
        release: Where its ConfigMaps stand.
        pod: The pod's spec.
        secrets: Contents of Secrets, by name and key.
        folder: Stands in for the container's root; paths in the environment lie below it.
    """
    configs = {config["metadata"]["name"]: config["data"] for config in of_kind(release, "ConfigMap")}
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        place = folder / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        volume = volumes.get(mount["name"], {})
        source = volume.get("secret") or volume.get("configMap")
        if source is not None:
            data = configs[source["name"]] if "name" in source else secrets[source["secretName"]]
            for item in source.get("items", [{"key": key, "path": key} for key in data]):
                (place / item["path"]).write_text(data[item["key"]], encoding="utf-8")
                (place / item["path"]).chmod(0o600)
    found = {}
    for each in container.get("envFrom", []):
        found |= configs[each["configMapRef"]["name"]]
    for each in container.get("env", []):
        reference = each["valueFrom"]["secretKeyRef"]
        if not reference.get("optional") or reference["key"] in secrets[reference["name"]]:
            found[each["name"]] = secrets[reference["name"]][reference["key"]]
    return {name: below(folder, value) for name, value in found.items()}


def below(folder: Path, text: str) -> str:
    """Put a path of the container below a folder; leave other texts as they are."""
    return str(folder) + text if text.startswith(("/etc/pcs", "/var/lib/pcs")) else text
