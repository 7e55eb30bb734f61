"""The Helm chart: rendered by the real Helm for a matrix of values, held against schemas and the project's own rules."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.charts import (
    CASES,
    CHART,
    PRODUCTION,
    ROOT,
    Manifest,
    helm,
    manifests,
    name_of,
    of_kind,
    only,
    rendered,
    template,
)
from deploy.custom_schemas import SCHEMAS
from deploy.policies import backend_complaints, pod_complaints, release_complaints
from pcs_backend import __version__

pytestmark = [pytest.mark.slow]

KUBERNETES_VERSIONS = ("1.29", "1.37")
"""The oldest that Chart.yaml allows, and the newest whose schemas there are."""

every_case = pytest.mark.parametrize("case", CASES)


@functools.cache
def schema_complaint(text: str) -> str:
    """Validate one manifest, given as JSON so that those which cases share are validated once."""
    manifest = json.loads(text)
    if manifest["kind"] in SCHEMAS:
        jsonschema.Draft202012Validator(SCHEMAS[manifest["kind"]]).validate(manifest)
        return ""
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return f"{name_of(manifest)}, Kubernetes {version}: {'/'.join(map(str, error.path))}: {error.message}"
    return ""


def complaints(release: list[Manifest] | tuple[Manifest, ...]) -> list[str]:
    found = release_complaints(release)
    for manifest in release:
        found += [
            f"{name_of(manifest)}: {complaint}"
            for complaint in [*pod_complaints(manifest), *backend_complaints(manifest)]
        ]
    return found


# --- every case ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [None, PRODUCTION], ids=["defaults", "production"])
def test_lint_finds_nothing(values: object) -> None:
    done = helm("lint", "--strict", str(CHART), *([] if values is None else ["--values", str(values)]))
    assert (done.code, done.error) == (0, "")
    assert "0 chart(s) failed" in done.output
    assert "[WARNING]" not in done.output


@every_case
def test_manifests_fit_the_schemas_of_kubernetes(case: str) -> None:
    found = [schema_complaint(json.dumps(manifest, sort_keys=True)) for manifest in rendered(case)]
    assert len(found) >= 7
    assert [complaint for complaint in found if complaint] == []


@every_case
def test_manifests_keep_the_projects_rules(case: str) -> None:
    assert complaints(rendered(case)) == []


def test_a_misspelt_field_is_found() -> None:
    backend = copy.deepcopy(only(of_kind(rendered("defaults"), "StatefulSet")))
    backend["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    assert "resource" in schema_complaint(json.dumps(backend))


def test_a_misspelt_field_of_a_custom_resource_is_found() -> None:
    monitor = copy.deepcopy(only(of_kind(rendered("monitoring"), "ServiceMonitor")))
    monitor["spec"]["endpoints"][0]["intervall"] = "15s"
    with pytest.raises(jsonschema.ValidationError, match="intervall"):
        schema_complaint(json.dumps(monitor))


# --- the rules find what they should ---------------------------------------------------------------------------------


def pod(release: dict[str, Manifest]) -> dict[str, Any]:
    return release["StatefulSet"]["spec"]["template"]["spec"]


def container(release: dict[str, Manifest]) -> dict[str, Any]:
    return pod(release)["containers"][0]


BREAKS: list[tuple[Callable[[dict[str, Manifest]], object], str]] = [
    (lambda each: pod(each)["securityContext"].pop("runAsNonRoot"), "may run as root"),
    (lambda each: pod(each)["securityContext"].update(runAsUser=0), "may run as root"),
    (lambda each: pod(each)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    (lambda each: pod(each).pop("automountServiceAccountToken"), "mounts a token"),
    (lambda each: pod(each).update(serviceAccountName="other"), "no such service account"),
    (lambda each: pod(each).pop("enableServiceLinks"), "takes variables from services"),
    (lambda each: pod(each).update(hostNetwork=True), "shares the host's namespaces"),
    (
        lambda each: pod(each)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "a volume of kind hostPath",
    ),
    (lambda each: pod(each)["volumes"][0].update(emptyDir={}), "a folder without a limit"),
    (lambda each: pod(each)["volumes"].pop(0), "mounts tmp, which is no volume"),
    (lambda each: pod(each).update(terminationGracePeriodSeconds=25), "is killed while it drains"),
    (lambda each: container(each)["securityContext"].pop("allowPrivilegeEscalation"), "may gain privileges"),
    (lambda each: container(each)["securityContext"].update(privileged=True), "may gain privileges"),
    (lambda each: container(each)["securityContext"].pop("readOnlyRootFilesystem"), "can be written"),
    (lambda each: container(each)["securityContext"].pop("capabilities"), "keeps capabilities"),
    (
        lambda each: container(each)["resources"].pop("limits"),
        "limits without cpu, ephemeral-storage, memory",
    ),
    (lambda each: container(each)["resources"]["requests"].pop("cpu"), "requests without cpu"),
    (lambda each: container(each)["ports"][0].update(hostPort=8080), "takes a port of the host"),
    (lambda each: container(each).update(image="registry.example:5000/pcs-backend"), "an image that moves"),
    (lambda each: container(each).update(image="pcs-backend:latest"), "an image that moves"),
    (
        lambda each: container(each)["env"].append({"name": "PCS_HMAC_KEYS", "value": "x"}),
        "stands in the manifest",
    ),
    (lambda each: container(each)["command"].append("$(HOSTNAME)"), "a text that the kubelet would change"),
    (lambda each: container(each).pop("readinessProbe"), "readinessProbe does not ask /health/ready"),
    (
        lambda each: container(each)["livenessProbe"]["httpGet"].update(path="/health/ready"),
        "livenessProbe does not",
    ),
    (lambda each: container(each).pop("lifecycle"), "does not drain"),
    (
        lambda each: each["StatefulSet"]["spec"]["persistentVolumeClaimRetentionPolicy"].update(
            whenScaled="Delete"
        ),
        "volumes may be deleted",
    ),
    (lambda each: each["StatefulSet"]["spec"].pop("volumeClaimTemplates"), "no volume of its own"),
    (
        lambda each: each["StatefulSet"]["spec"]["selector"]["matchLabels"].update(track="x"),
        "select its own pods",
    ),
    (lambda each: each["StatefulSet"]["spec"].update(serviceName="x"), "no such service"),
    (lambda each: each["Service"]["spec"]["selector"].update(track="canary"), "does not lead to"),
    (
        lambda each: each["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].update(x="y"),
        "does not cover",
    ),
    (lambda each: each["NetworkPolicy"]["spec"]["ingress"][0].update({"from": []}), "lets everyone through"),
    (lambda each: each["NetworkPolicy"]["spec"]["ingress"][0]["from"].append({}), "names nobody"),
    (lambda each: each["NetworkPolicy"]["spec"].update(policyTypes=["Ingress"]), "leaves a direction open"),
    (
        lambda each: each["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].update(x="y"),
        "under 0 network",
    ),
    (lambda each: each["ConfigMap"]["data"].update(METRICS_PASS="x"), "METRICS_PASS is a secret"),
    (
        lambda each: each["ServiceMonitor"]["spec"]["selector"]["matchLabels"].update(x="y"),
        "through 0 services",
    ),
    (lambda each: each["Ingress"]["spec"].pop("tls"), "without TLS"),
    (
        lambda each: each["Ingress"]["spec"]["rules"][0]["http"]["paths"][0].update(path="/"),
        "opens more than the submit path",
    ),
    (
        lambda each: each["HorizontalPodAutoscaler"] and each["StatefulSet"]["spec"].update(replicas=3),
        "beside an auto",
    ),
]


@pytest.mark.parametrize(("damage", "complaint"), BREAKS, ids=[complaint for _, complaint in BREAKS])
def test_each_rule_finds_what_breaks_it(
    damage: Callable[[dict[str, Manifest]], object], complaint: str
) -> None:
    release = [copy.deepcopy(manifest) for manifest in rendered("production")]
    first: dict[str, Manifest] = {}
    for manifest in release:
        first.setdefault(manifest["kind"], manifest)
    container(first)["env"] = container(first).get("env", [])
    damage(first)
    assert any(complaint in found for found in complaints(release)), complaints(release)


# --- copies ----------------------------------------------------------------------------------------------------------


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == __version__
    assert chart["kubeVersion"] == f">={KUBERNETES_VERSIONS[0]}.0-0"


def test_rules_of_the_chart_are_those_of_grafana() -> None:
    originals = {path.name: path.read_bytes() for path in (ROOT / "grafana/rules").glob("*.rules.yaml")}
    copies = {path.name: path.read_bytes() for path in (CHART / "rules").iterdir()}
    assert originals
    assert copies == originals


def test_rules_reach_prometheus_unchanged() -> None:
    sent = [rule["spec"] for rule in of_kind(rendered("monitoring"), "PrometheusRule")]
    assert sent == [yaml.safe_load(path.read_bytes()) for path in sorted((CHART / "rules").iterdir())]


def test_alerts_lead_to_runbooks_where_they_can_be_read() -> None:
    base = "https://git.example/pcs/blob/main/"
    done = template({"prometheusRule": {"enabled": True, "runbookBase": base}})
    found = of_kind(manifests(done.output), "PrometheusRule")
    links = [
        rule["annotations"]["runbook_url"]
        for manifest in found
        for group in manifest["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(links) > 10
    assert [link for link in links if not link.startswith(f"{base}docs/runbooks/")] == []


def test_a_packaged_chart_makes_the_same(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.code == 0, done.error
    (package,) = tmp_path.iterdir()
    values = CASES["monitoring"]
    packaged = helm("template", "pcs-verification", str(package), "--namespace", "plant", values=values)
    assert packaged.output == template(values).output
