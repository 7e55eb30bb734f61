"""Values that do not fit together, or are none of the chart's: refused before anything is installed, with a message."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.charts import SHARED, TLS, template

pytestmark = [pytest.mark.slow]

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "memory store, two replicas": (
        {"replicaCount": 2},
        (
            "replicaCount: found more than 1 with env.dedupBackend memory, whose pods would not know each other's "
            "outcomes; allowed: 1, or env.dedupBackend redis or postgres"
        ),
    ),
    "memory store, two workers": (
        {"env": {"workers": 2}},
        "env.workers: found more than 1 with env.dedupBackend memory, which lives in one process; allowed: 1,",
    ),
    "memory store, autoscaling": ({"autoscaling": {"enabled": True}}, "autoscaling.enabled: found true with"),
    "memory store, canary": ({"canary": {"enabled": True, "image": {"tag": "2"}}}, "canary: found one with"),
    "signing without a secret": (
        {"secret": {"existing": ""}, "metricsBasicAuth": {"enabled": False}},
        (
            "signing.enabled: found true with signing.alg hmac without a secret; allowed: a Secret named by "
            "secret.existing, or secret.create=true with secret.values.PCS_HMAC_KEY, or signing.enabled=false"
        ),
    ),
    "ed25519 without a key": (
        {"signing": {"alg": "ed25519"}, "secret": {"create": True, "values": {"PCS_HMAC_KEY": "canary"}}},
        "signing.enabled: found true with signing.alg ed25519 without a key",
    ),
    "key file without a secret": (
        {"signing": {"keysFile": True}, "secret": {"create": True}},
        "signing.keysFile: found true without a secret",
    ),
    "key file without signing": (
        {"signing": {"enabled": False, "keysFile": True}},
        "signing.keysFile: found true with",
    ),
    "login without a secret": (
        {"secret": {"create": True, "values": {"PCS_HMAC_KEY": "canary"}}},
        "metricsBasicAuth.enabled: found true without a secret",
    ),
    "values for a secret that is not made": (
        {"secret": {"values": {"PCS_HMAC_KEY": "canary"}}},
        "secret.values: found some with secret.create false",
    ),
    "postgres without its address": (
        {"env": {"dedupBackend": "postgres"}, "secret": {"existing": ""}, "signing": {"enabled": False}}
        | {"metricsBasicAuth": {"enabled": False}},
        "env.dedupBackend: found postgres without POSTGRES_DSN",
    ),
    "redis without its address": (
        {"env": {"dedupBackend": "redis"}, "secret": {"existing": ""}, "signing": {"enabled": False}}
        | {"metricsBasicAuth": {"enabled": False}},
        "env.dedupBackend: found redis without an address",
    ),
    "labels without their login": (
        {"calibrationBasicAuth": {"enabled": True}, "secret": {"existing": ""}, "signing": {"enabled": False}}
        | {"metricsBasicAuth": {"enabled": False}},
        "calibrationBasicAuth.enabled: found true without a secret",
    ),
    "proofs without a key": (
        {"env": {"requireDirectionProof": True}},
        "env.requireDirectionProof: found true without signing.vrfPublicKeys",
    ),
    "tenants without a key file": ({"env": {"multiTenant": True}}, "env.multiTenant: found true without"),
    "request signatures without keys": (
        {"signing": {"enabled": False}, "env": {"requireMessageSignature": True}},
        "env.requireMessageSignature: found true with signing.enabled false",
    ),
    "log kept longer than outcomes": (
        {"env": {"walRetentionDays": 15}},
        "env.walRetentionDays: found more than",
    ),
    "less room than for one body": (
        {"env": {"maxBodyBytes": 65536, "bodiesMaxBytes": 4096}},
        "env.bodiesMaxBytes: found less than",
    ),
    "more replicas than the most": (
        SHARED | {"autoscaling": {"enabled": True, "minReplicas": 9}},
        "autoscaling.minReplicas: found more than",
    ),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "tls.secretName: found nothing"),
    "client certificates without TLS": (
        {"tls": {"clientAuth": {"enabled": True}}},
        "tls.clientAuth.enabled: found",
    ),
    "client certificates without authorities": (
        {"tls": TLS | {"clientAuth": {"enabled": True}}},
        "tls.clientAuth.caSecretName: found nothing",
    ),
    "client certificates and none for probes": (
        {"tls": TLS | {"clientAuth": {"enabled": True, "caSecretName": "ca"}}},
        "tls.clientAuth.clientSecretName: found nothing",
    ),
    "an ingress that shows no certificate": (
        {
            "tls": TLS | {"clientAuth": {"enabled": True, "caSecretName": "ca", "clientSecretName": "p"}},
            "ingress": {"enabled": True, "host": "pcs.example", "tls": {"secretName": "t"}},
        },
        "tls.clientAuth.enabled: found true with an ingress",
    ),
    "an ingress without a host": ({"ingress": {"enabled": True}}, "ingress.host: found nothing"),
    "an ingress without TLS": (
        {"ingress": {"enabled": True, "host": "pcs.example"}},
        "ingress.tls.secretName: found nothing with ingress.enabled, and parts of a record are under no signature",
    ),
    "client certificates without an ingress": (
        {"ingress": {"mtls": {"enabled": True}}},
        "ingress.mtls.enabled: found",
    ),
    "client certificates at an unknown ingress": (
        {
            "ingress": {
                "enabled": True,
                "controller": "other",
                "host": "pcs.example",
                "tls": {"secretName": "t"},
                "mtls": {"enabled": True, "secretName": "ca"},
            }
        },
        "ingress.mtls.enabled: found true with ingress.controller other",
    ),
    "a canary of no image": (
        SHARED | {"canary": {"enabled": True}},
        "canary.image: found neither tag nor digest",
    ),
    "a canary both tried and promoted": (
        SHARED | {"canary": {"enabled": True, "promote": True, "image": {"tag": "2"}}},
        "canary.promote: found true with canary.enabled",
    ),
    "a promotion without a gate": (
        SHARED | {"canary": {"promote": True, "gate": {"enabled": False}}},
        "canary.promote: found true without canary.gate.enabled",
    ),
    "a gate without Prometheus": (
        {"canary": {"gate": {"prometheusUrl": ""}}},
        "canary.gate.prometheusUrl: found nothing",
    ),
    # By the schema:
    "an unknown value": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "an unknown setting": (
        {"env": {"dedupBackEnd": "redis"}},
        "additional properties 'dedupBackEnd' not allowed",
    ),
    "an unknown store": ({"env": {"dedupBackend": "sqlite"}}, "at '/env/dedupBackend': value must be one of"),
    "an unknown algorithm": ({"signing": {"alg": "none"}}, "at '/signing/alg': value must be one of"),
    "a text for a number": ({"replicaCount": "2"}, "at '/replicaCount': got string, want integer"),
    "a password in the ConfigMap": ({"env": {"redisAddr": "redis://:canary@redis"}}, "at '/env/redisAddr'"),
    "an image that moves": ({"image": {"tag": "latest"}}, "at '/image/tag'"),
    "no limits": ({"resources": {"limits": None}}, "at '/resources': missing property 'limits'"),
    "root": ({"podSecurity": {"runAsUser": 0}}, "at '/podSecurity/runAsUser'"),
    "everybody may come in": ({"networkPolicy": {"agents": [{}]}}, "at '/networkPolicy/agents/0'"),
    "everywhere may be gone": (
        {"networkPolicy": {"store": {"peers": []}}},
        "at '/networkPolicy/store/peers'",
    ),
    "a volume that several nodes share": (
        {"persistence": {"accessMode": "ReadWriteMany"}},
        "at '/persistence/accessMode'",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_values_that_do_not_fit_are_refused(case: str) -> None:
    values, message = REFUSALS[case]
    done = template(values)
    assert done.code == 1
    assert message in done.error
    assert "canary-" not in done.error
    assert done.output == ""
