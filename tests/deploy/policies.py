"""What the project asks of every pod and every release, beyond what Kubernetes' schemas ask.

Each rule returns complaints; none means that it holds. A manifest of a kind that a rule does not speak of holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from deploy.charts import Manifest, name_of, of_kind

PROBES = {"startupProbe": "startup", "readinessProbe": "ready", "livenessProbe": "live"}
"""Which of the health endpoints each probe asks."""

VOLUME_KINDS = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
SECRET_NAMES = re.compile(r"PASS|KEY|DSN|SECRET|TOKEN|USER")
NOT_SECRET = {"TLS_KEY", "PCS_KEYS_FILE", "TOKEN_RATE"}  # paths and a number
_LABEL = re.compile(r"\A([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?\Z")


SUBMIT_PATHS = ("/v1/pcs/submit", "/v1/pcs/batch")


def pod_of(manifest: Manifest) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return metadata and spec of the pod that a manifest makes."""
    if manifest["kind"] == "Pod":
        return manifest["metadata"], manifest["spec"]
    template = manifest.get("spec", {}).get("template")
    return None if template is None else (template["metadata"], template["spec"])


def pods(release: Sequence[Manifest]) -> Iterator[tuple[Manifest, dict[str, Any], dict[str, Any]]]:
    for manifest in release:
        if (pod := pod_of(manifest)) is not None:
            yield manifest, *pod


def pod_complaints(manifest: Manifest) -> list[str]:
    """What is wrong with the pod that a manifest makes."""
    pod = pod_of(manifest)
    if pod is None:
        return []
    _, spec = pod
    found = []
    security = spec.get("securityContext", {})
    if (
        security.get("runAsNonRoot") is not True
        or not security.get("runAsUser")
        or not security.get("runAsGroup")
    ):
        found.append("may run as root")
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("no seccomp profile")
    if spec.get("automountServiceAccountToken") is not False:
        found.append("mounts a token")
    if not spec.get("serviceAccountName"):
        found.append("no service account named")
    if spec.get("enableServiceLinks") is not False:
        found.append("takes variables from services")
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("shares the host's namespaces")
    for volume in spec.get("volumes", []):
        (kind,) = volume.keys() - {"name"}
        if kind not in VOLUME_KINDS:
            found.append(f"a volume of kind {kind}")
        if kind == "emptyDir" and not volume[kind].get("sizeLimit"):
            found.append("a folder without a limit")
    mounted = {volume["name"] for volume in spec.get("volumes", [])} | {
        claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])
    }
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        found += container_complaints(container)
        found += [
            f"mounts {mount['name']}, which is no volume"
            for mount in container.get("volumeMounts", [])
            if mount["name"] not in mounted
        ]
    return found


def container_complaints(container: dict[str, Any]) -> list[str]:
    found = []
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        found.append("may gain privileges")
    if security.get("readOnlyRootFilesystem") is not True:
        found.append("root file system can be written")
    if security.get("capabilities") != {"drop": ["ALL"]}:
        found.append("keeps capabilities")
    resources = container.get("resources", {})
    for side in ("requests", "limits"):
        missing = {"cpu", "memory", "ephemeral-storage"} - resources.get(side, {}).keys()
        if missing:
            found.append(f"{side} without {', '.join(sorted(missing))}")
    if any("hostPort" in port for port in container.get("ports", [])):
        found.append("takes a port of the host")
    _, _, tag = container["image"].rpartition("/")[2].partition(":")
    if tag in {"", "latest"}:
        found.append("an image that moves")
    found += [
        f"{variable['name']} stands in the manifest"
        for variable in container.get("env", [])
        if "value" in variable and SECRET_NAMES.search(variable["name"])
    ]
    texts = [*container.get("command", []), *container.get("args", [])]
    if any("$(" in text or "$$" in text for text in texts):
        found.append("a text that the kubelet would change")
    return found


def backend_complaints(manifest: Manifest) -> list[str]:
    """What is wrong with a StatefulSet of the backend."""
    if manifest["kind"] != "StatefulSet":
        return []
    found = []
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    for probe, state in PROBES.items():
        asked = container.get(probe, {})
        path, command = asked.get("httpGet", {}).get("path"), asked.get("exec", {}).get("command")
        if path != f"/health/{state}" and command != ["python3", "-m", "pcs_backend.probe", state]:
            found.append(f"{probe} does not ask /health/{state}")
    if spec.get("persistentVolumeClaimRetentionPolicy") != {"whenDeleted": "Retain", "whenScaled": "Retain"}:
        found.append("volumes may be deleted")
    if [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])] != ["data"]:
        found.append("no volume of its own")
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    if "/etc/pcs/scripts/drain.py" not in command:
        found.append("does not drain")
    elif pod["terminationGracePeriodSeconds"] <= sum(map(float, command[2:4])):
        found.append("is killed while it drains")
    if spec["selector"]["matchLabels"].items() - spec["template"]["metadata"]["labels"].items():
        found.append("does not select its own pods")
    return found


def release_complaints(release: Sequence[Manifest]) -> list[str]:
    """What is wrong with how the manifests of a release fit together."""
    return [complaint for rule in RELEASE_RULES for complaint in rule(release)]


def names_are_names(release: Sequence[Manifest]) -> Iterator[str]:
    for name, count in Counter(map(name_of, release)).items():
        if count > 1:
            yield f"{name} stands twice"
    for manifest in release:
        for label in manifest["metadata"].get("labels", {}).values():
            if not _LABEL.match(label):
                yield f"{name_of(manifest)}: a label that is none"


def no_secret_is_in_a_config_map(release: Sequence[Manifest]) -> Iterator[str]:
    for config in of_kind(release, "ConfigMap"):
        for key in config["data"]:
            if key.isupper() and SECRET_NAMES.search(key) and key not in NOT_SECRET:
                yield f"{name_of(config)}: {key} is a secret"


def what_pods_name_is_there(release: Sequence[Manifest]) -> Iterator[str]:
    configs = {config["metadata"]["name"]: config["data"] for config in of_kind(release, "ConfigMap")}
    accounts = {account["metadata"]["name"] for account in of_kind(release, "ServiceAccount")}
    services = {service["metadata"]["name"] for service in of_kind(release, "Service")}
    for manifest, _, spec in pods(release):
        if accounts and spec["serviceAccountName"] not in accounts:
            yield f"{name_of(manifest)}: no such service account"
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                if source["configMapRef"]["name"] not in configs:
                    yield f"{name_of(manifest)}: no such ConfigMap"
        for volume in spec.get("volumes", []):
            wanted = volume.get("configMap")
            if wanted and {item["key"] for item in wanted["items"]} - configs.get(wanted["name"], {}).keys():
                yield f"{name_of(manifest)}: no such file in a ConfigMap"
        if manifest["kind"] == "StatefulSet" and manifest["spec"]["serviceName"] not in services:
            yield f"{name_of(manifest)}: no such service"


def nobody_is_let_through_who_is_not_named(release: Sequence[Manifest]) -> Iterator[str]:
    policies = of_kind(release, "NetworkPolicy")
    for policy in policies:
        spec = policy["spec"]
        if sorted(spec["policyTypes"]) != ["Egress", "Ingress"]:
            yield f"{name_of(policy)} leaves a direction open"
        for side, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(side) or []:
                if not rule.get(peers) or not rule.get("ports"):
                    yield f"{name_of(policy)} lets everyone through"
                if {} in (rule.get(peers) or []):
                    yield f"{name_of(policy)} names nobody, which is everybody"
    for manifest, metadata, _ in pods(release if policies else []):
        count = sum(selects(policy["spec"]["podSelector"], metadata) for policy in policies)
        if count != 1:
            yield f"{name_of(manifest)} is under {count} network policies"


def selectors_find_the_backend(release: Sequence[Manifest]) -> Iterator[str]:
    for backend in of_kind(release, "StatefulSet"):
        metadata = backend["spec"]["template"]["metadata"]
        for service in of_kind(release, "Service"):
            if not selects({"matchLabels": service["spec"]["selector"]}, metadata):
                yield f"{name_of(service)} does not lead to {name_of(backend)}"
        for budget in of_kind(release, "PodDisruptionBudget"):
            if not selects(budget["spec"]["selector"], metadata):
                yield f"{name_of(budget)} does not cover {name_of(backend)}"
        for spread in backend["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"], metadata):
                yield f"{name_of(backend)} spreads other pods"


def metrics_come_through_one_service(release: Sequence[Manifest]) -> Iterator[str]:
    for monitor in of_kind(release, "ServiceMonitor"):
        services = of_kind(release, "Service")
        count = sum(selects(monitor["spec"]["selector"], service["metadata"]) for service in services)
        if count != 1:
            yield f"{name_of(monitor)} scrapes through {count} services"


def one_hand_sets_the_replicas(release: Sequence[Manifest]) -> Iterator[str]:
    backends = {backend["metadata"]["name"]: backend for backend in of_kind(release, "StatefulSet")}
    for scaler in of_kind(release, "HorizontalPodAutoscaler"):
        if "replicas" in backends[scaler["spec"]["scaleTargetRef"]["name"]]["spec"]:
            yield f"{name_of(scaler)}: replicas beside an autoscaler"


def outside_sees_the_submit_paths_alone(release: Sequence[Manifest]) -> Iterator[str]:
    services = {service["metadata"]["name"] for service in of_kind(release, "Service")}
    for ingress in of_kind(release, "Ingress"):
        if not ingress["spec"].get("tls"):
            yield f"{name_of(ingress)} without TLS"
        for path in (each for rule in ingress["spec"]["rules"] for each in rule["http"]["paths"]):
            if path["path"] not in SUBMIT_PATHS or path["pathType"] != "Exact":
                yield f"{name_of(ingress)} opens more than the submit paths"
            if path["backend"]["service"]["name"] not in services:
                yield f"{name_of(ingress)}: no such service"


RELEASE_RULES = (
    names_are_names,
    no_secret_is_in_a_config_map,
    what_pods_name_is_there,
    nobody_is_let_through_who_is_not_named,
    selectors_find_the_backend,
    metrics_come_through_one_service,
    one_hand_sets_the_replicas,
    outside_sees_the_submit_paths_alone,
)


def selects(selector: dict[str, Any], metadata: dict[str, Any]) -> bool:
    assert selector.keys() == {"matchLabels"}
    return selector["matchLabels"].items() <= metadata.get("labels", {}).items()
