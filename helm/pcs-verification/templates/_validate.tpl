{{/* What no schema can say: values that do not fit together. Each message names the value, what was found, what is allowed. */}}

{{- define "pcs.validate" -}}
{{- $v := .Values -}}
{{- $memory := eq $v.env.dedupBackend "memory" -}}
{{- if $memory -}}
  {{- if gt (int $v.env.workers) 1 -}}
    {{- fail "env.workers: found more than 1 with env.dedupBackend memory, which lives in one process; allowed: 1, or env.dedupBackend redis or postgres" -}}
  {{- end -}}
  {{- if gt (int $v.replicaCount) 1 -}}
    {{- fail "replicaCount: found more than 1 with env.dedupBackend memory, whose pods would not know each other's outcomes; allowed: 1, or env.dedupBackend redis or postgres" -}}
  {{- end -}}
  {{- if $v.autoscaling.enabled -}}
    {{- fail "autoscaling.enabled: found true with env.dedupBackend memory, which one pod alone can use; allowed: false, or env.dedupBackend redis or postgres" -}}
  {{- end -}}
  {{- if or $v.canary.enabled $v.canary.promote -}}
    {{- fail "canary: found one with env.dedupBackend memory, which one pod alone can use; allowed: none, or env.dedupBackend redis or postgres" -}}
  {{- end -}}
{{- end -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
  {{- fail "autoscaling.minReplicas: found more than autoscaling.maxReplicas; allowed: up to autoscaling.maxReplicas" -}}
{{- end -}}
{{- if gt (float64 $v.env.walRetentionDays) (float64 $v.env.dedupTtlDays) -}}
  {{- fail "env.walRetentionDays: found more than env.dedupTtlDays; allowed: up to env.dedupTtlDays" -}}
{{- end -}}
{{- if gt (float64 $v.env.maxBodyBytes) (float64 $v.env.bodiesMaxBytes) -}}
  {{- fail "env.bodiesMaxBytes: found less than env.maxBodyBytes; allowed: env.maxBodyBytes or more" -}}
{{- end -}}
{{- include "pcs.validateSecret" . -}}
{{- include "pcs.validateTls" . -}}
{{- if and $v.canary.enabled $v.canary.promote -}}
  {{- fail "canary.promote: found true with canary.enabled; allowed: true with canary.enabled false, when image is the canary's" -}}
{{- end -}}
{{- if and $v.canary.enabled (not (or $v.canary.image.tag $v.canary.image.digest)) -}}
  {{- fail "canary.image: found neither tag nor digest with canary.enabled; allowed: the image to try" -}}
{{- end -}}
{{- if and $v.canary.promote (not $v.canary.gate.enabled) -}}
  {{- fail "canary.promote: found true without canary.gate.enabled; allowed: true with the gate, which is all it does" -}}
{{- end -}}
{{- if and $v.canary.gate.enabled (not $v.canary.gate.prometheusUrl) -}}
  {{- fail "canary.gate.prometheusUrl: found nothing with canary.gate.enabled; allowed: the URL of a Prometheus, or canary.gate.enabled=false" -}}
{{- end -}}
{{- end -}}

{{/* Every key of the Secret that the toggles ask for has to come from somewhere. */}}
{{- define "pcs.validateSecret" -}}
{{- $v := .Values -}}
{{- $given := $v.secret.values -}}
{{- if and $given (not $v.secret.create) -}}
  {{- fail "secret.values: found some with secret.create false; allowed: none, or secret.create=true" -}}
{{- end -}}
{{- $source := "a Secret named by secret.existing, or secret.create=true with" -}}
{{- $known := and (not $v.secret.create) $v.secret.existing -}}
{{- if and $v.signing.enabled $v.signing.keysFile (not $known) (not (index $given "keys.toml")) -}}
  {{- fail (printf "signing.keysFile: found true without a secret; allowed: %s secret.values.keys\\.toml" $source) -}}
{{- end -}}
{{- if and $v.signing.enabled (not $v.signing.keysFile) (not $known) -}}
  {{- if and (eq $v.signing.alg "hmac") (not (or $given.PCS_HMAC_KEY $given.PCS_HMAC_KEYS)) -}}
    {{- fail (printf "signing.enabled: found true with signing.alg hmac without a secret; allowed: %s secret.values.PCS_HMAC_KEY, or signing.enabled=false" $source) -}}
  {{- end -}}
  {{- if and (eq $v.signing.alg "ed25519") (not $given.PCS_ED25519_PUB_B64) -}}
    {{- fail (printf "signing.enabled: found true with signing.alg ed25519 without a key; allowed: %s secret.values.PCS_ED25519_PUB_B64, or signing.enabled=false" $source) -}}
  {{- end -}}
{{- end -}}
{{- if and $v.signing.keysFile (not $v.signing.enabled) -}}
  {{- fail "signing.keysFile: found true with signing.enabled false; allowed: false, or signing.enabled=true" -}}
{{- end -}}
{{- if and (not $v.signing.enabled) $v.env.requireMessageSignature -}}
  {{- fail "env.requireMessageSignature: found true with signing.enabled false; allowed: false, or signing.enabled=true" -}}
{{- end -}}
{{- if and $v.env.requireDirectionProof (not $v.signing.vrfPublicKeys) (not $v.signing.keysFile) -}}
  {{- fail "env.requireDirectionProof: found true without signing.vrfPublicKeys and signing.keysFile; allowed: false, or one of them" -}}
{{- end -}}
{{- if and $v.env.multiTenant (not $v.signing.keysFile) -}}
  {{- fail "env.multiTenant: found true without signing.keysFile, which alone names tenants; allowed: false, or signing.keysFile=true" -}}
{{- end -}}
{{- if and $v.metricsBasicAuth.enabled (not $known) (not (and $given.METRICS_USER $given.METRICS_PASS)) -}}
  {{- fail (printf "metricsBasicAuth.enabled: found true without a secret; allowed: %s secret.values.METRICS_USER and METRICS_PASS, or metricsBasicAuth.enabled=false" $source) -}}
{{- end -}}
{{- if and $v.calibrationBasicAuth.enabled (not $known) (not (and $given.CALIBRATION_USER $given.CALIBRATION_PASS)) -}}
  {{- fail (printf "calibrationBasicAuth.enabled: found true without a secret; allowed: %s secret.values.CALIBRATION_USER and CALIBRATION_PASS, or calibrationBasicAuth.enabled=false" $source) -}}
{{- end -}}
{{- if and (eq $v.env.dedupBackend "postgres") (not $known) (not $given.POSTGRES_DSN) -}}
  {{- fail (printf "env.dedupBackend: found postgres without POSTGRES_DSN; allowed: %s secret.values.POSTGRES_DSN" $source) -}}
{{- end -}}
{{- if and (eq $v.env.dedupBackend "redis") (not $v.env.redisAddr) (not $known) (not $given.REDIS_ADDR) -}}
  {{- fail (printf "env.dedupBackend: found redis without an address; allowed: env.redisAddr, %s secret.values.REDIS_ADDR" $source) -}}
{{- end -}}
{{- end -}}

{{- define "pcs.validateTls" -}}
{{- $v := .Values -}}
{{- if and $v.tls.enabled (not $v.tls.secretName) -}}
  {{- fail "tls.secretName: found nothing with tls.enabled; allowed: a Secret of type kubernetes.io/tls" -}}
{{- end -}}
{{- if $v.tls.clientAuth.enabled -}}
  {{- if not $v.tls.enabled -}}
    {{- fail "tls.clientAuth.enabled: found true with tls.enabled false; allowed: false, or tls.enabled=true" -}}
  {{- end -}}
  {{- if not $v.tls.clientAuth.caSecretName -}}
    {{- fail "tls.clientAuth.caSecretName: found nothing with tls.clientAuth.enabled; allowed: a Secret with ca.crt" -}}
  {{- end -}}
  {{- if not $v.tls.clientAuth.clientSecretName -}}
    {{- fail "tls.clientAuth.clientSecretName: found nothing with tls.clientAuth.enabled; allowed: a Secret of type kubernetes.io/tls with a certificate for Prometheus, helm test and the wait before the end of a pod" -}}
  {{- end -}}
  {{- if and $v.ingress.enabled (ne $v.ingress.controller "other") -}}
    {{- fail "tls.clientAuth.enabled: found true with an ingress whose annotations the chart writes, which show no certificate; allowed: ingress.mtls instead, or ingress.controller=other with annotations of your own" -}}
  {{- end -}}
{{- end -}}
{{- if $v.ingress.enabled -}}
  {{- if not $v.ingress.host -}}
    {{- fail "ingress.host: found nothing with ingress.enabled; allowed: a host name" -}}
  {{- end -}}
  {{- if not $v.ingress.tls.secretName -}}
    {{- fail "ingress.tls.secretName: found nothing with ingress.enabled, and parts of a record are under no signature; allowed: a Secret of type kubernetes.io/tls" -}}
  {{- end -}}
{{- end -}}
{{- if $v.ingress.mtls.enabled -}}
  {{- if not $v.ingress.enabled -}}
    {{- fail "ingress.mtls.enabled: found true with ingress.enabled false; allowed: false, or ingress.enabled=true" -}}
  {{- end -}}
  {{- if not $v.ingress.mtls.secretName -}}
    {{- fail "ingress.mtls.secretName: found nothing with ingress.mtls.enabled; allowed: a Secret with ca.crt" -}}
  {{- end -}}
  {{- if eq $v.ingress.controller "other" -}}
    {{- fail "ingress.mtls.enabled: found true with ingress.controller other, whose annotations the chart does not know; allowed: nginx or traefik, or false with ingress.annotations of your own" -}}
  {{- end -}}
{{- end -}}
{{- end -}}
