"""Schemas of the custom resources that the chart makes, strict: the fields that it uses and no others.

Written after the definitions of the Prometheus operator (monitoring.coreos.com/v1) and Traefik (traefik.io/v1alpha1),
which no offline set of schemas holds.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": required | optional,
        "required": sorted(required),
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


_KEY = _object({"name": _TEXT, "key": _TEXT})
_ENDPOINT = _object(
    {"port": _TEXT, "path": {"const": "/metrics"}, "interval": _DURATION, "scrapeTimeout": _DURATION},
    scheme={"enum": ["http", "https"]},
    basicAuth=_object({"username": _KEY, "password": _KEY}),
    tlsConfig=_object(
        {"ca": _object({"secret": _KEY}), "serverName": _TEXT},
        cert=_object({"secret": _KEY}),
        keySecret=_KEY,
    ),
    relabelings=_list(_object({"targetLabel": _TEXT, "replacement": _TEXT, "action": {"enum": ["replace"]}})),
)
_RULE = {
    "oneOf": [
        _object(
            {"alert": _TEXT, "expr": _TEXT, "labels": _TEXTS, "annotations": _TEXTS}, **{"for": _DURATION}
        ),
        _object({"record": _TEXT, "expr": _TEXT}, labels=_TEXTS),
    ]
}
_SPECS = {
    "ServiceMonitor": _object(
        {"selector": _object({"matchLabels": _TEXTS}), "endpoints": _list(_ENDPOINT)},
        namespaceSelector=_object({"matchNames": _list(_TEXT)}),
        podTargetLabels=_list(_TEXT),
    ),
    "PrometheusRule": _object(
        {"groups": _list(_object({"name": _TEXT, "rules": _list(_RULE)}, interval=_DURATION))}
    ),
    "TLSOption": _object(
        {
            "minVersion": {"enum": ["VersionTLS12", "VersionTLS13"]},
            "clientAuth": _object(
                {"secretNames": _list(_TEXT), "clientAuthType": {"const": "RequireAndVerifyClientCert"}}
            ),
        }
    ),
}
_VERSIONS = {
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "TLSOption": "traefik.io/v1alpha1",
}

SCHEMAS = {
    kind: _object(
        {
            "apiVersion": {"const": _VERSIONS[kind]},
            "kind": {"const": kind},
            "metadata": _object({"name": _TEXT, "labels": _TEXTS}),
            "spec": spec,
        }
    )
    for kind, spec in _SPECS.items()
}
"""By kind."""
