{{/* What the pods of the chart are made of. */}}

{{- define "pcs.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ include "pcs.text" .Values.podSecurity.runAsUser }}
runAsGroup: {{ include "pcs.text" .Values.podSecurity.runAsGroup }}
fsGroup: {{ include "pcs.text" .Values.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "pcs.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What every pod's spec begins with. */}}
{{- define "pcs.podBase" -}}
serviceAccountName: {{ include "pcs.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "pcs.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The ConfigMap's part of the environment. */}}
{{- define "pcs.environment" -}}
HOST: "0.0.0.0"
PORT: "8080"
DATA_DIR: /var/lib/pcs/data
{{- range $name, $value := .Values.env }}
{{- $text := include "pcs.text" $value }}
{{- if $text }}
{{ $name | snakecase | upper }}: {{ $text | quote }}
{{- end }}
{{- end }}
PCS_SIGN_ALG: {{ ternary .Values.signing.alg "none" .Values.signing.enabled }}
ALLOW_UNSIGNED: {{ not .Values.signing.enabled | quote }}
METRICS_PUBLIC: {{ not .Values.metricsBasicAuth.enabled | quote }}
{{- with .Values.tracing.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- with .Values.signing.vrfPublicKeys }}
PCS_VRF_PUB_B64: {{ . | quote }}
{{- end }}
{{- if .Values.signing.keysFile }}
PCS_KEYS_FILE: /etc/pcs/keys/keys.toml
{{- end }}
{{- if .Values.params }}
PCS_PARAMS_FILE: /etc/pcs/params/params.toml
{{- end }}
{{- if .Values.tls.enabled }}
TLS_CERT: /etc/pcs/tls/tls.crt
TLS_KEY: /etc/pcs/tls/tls.key
{{- end }}
{{- if .Values.tls.clientAuth.enabled }}
TLS_CLIENT_CA: /etc/pcs/client-ca/ca.crt
{{- with .Values.tls.clientAuth.proxyName }}
TLS_PROXY_NAME: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* One variable from the Secret: (dict "root" $ "name" NAME "optional" BOOL). */}}
{{- define "pcs.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "pcs.secret" .root }}
      key: {{ .name }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end -}}

{{- define "pcs.metricsLogin" -}}
{{- if .Values.metricsBasicAuth.enabled }}
{{ include "pcs.secretVariable" (dict "root" . "name" "METRICS_USER") }}
{{ include "pcs.secretVariable" (dict "root" . "name" "METRICS_PASS") }}
{{- end }}
{{- end -}}

{{/* The Secret's part of the environment: only what the toggles ask for. */}}
{{- define "pcs.secretEnvironment" -}}
{{- $beside := .Values.signing.keysFile -}}
{{- if .Values.signing.enabled }}
{{- if eq .Values.signing.alg "hmac" }}
{{ include "pcs.secretVariable" (dict "root" . "name" "PCS_HMAC_KEY" "optional" $beside) }}
{{ include "pcs.secretVariable" (dict "root" . "name" "PCS_HMAC_KEYS" "optional" true) }}
{{- else }}
{{ include "pcs.secretVariable" (dict "root" . "name" "PCS_ED25519_PUB_B64" "optional" $beside) }}
{{- end }}
{{- end }}
{{- if eq .Values.env.dedupBackend "postgres" }}
{{ include "pcs.secretVariable" (dict "root" . "name" "POSTGRES_DSN") }}
{{- end }}
{{- if and (eq .Values.env.dedupBackend "redis") (not .Values.env.redisAddr) }}
{{ include "pcs.secretVariable" (dict "root" . "name" "REDIS_ADDR") }}
{{- end }}
{{- include "pcs.metricsLogin" . }}
{{- if .Values.calibrationBasicAuth.enabled }}
{{ include "pcs.secretVariable" (dict "root" . "name" "CALIBRATION_USER") }}
{{ include "pcs.secretVariable" (dict "root" . "name" "CALIBRATION_PASS") }}
{{- end }}
{{- end -}}

{{/* Files that the settings name. */}}
{{- define "pcs.fileMounts" -}}
{{- if .Values.signing.keysFile }}
- {name: keys, mountPath: /etc/pcs/keys, readOnly: true}
{{- end }}
{{- if .Values.params }}
- {name: params, mountPath: /etc/pcs/params, readOnly: true}
{{- end }}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/pcs/tls, readOnly: true}
{{- end }}
{{- if .Values.tls.clientAuth.enabled }}
- {name: client-ca, mountPath: /etc/pcs/client-ca, readOnly: true}
{{- end }}
{{- include "pcs.clientMount" . }}
{{- end -}}

{{- define "pcs.fileVolumes" -}}
{{- if .Values.signing.keysFile }}
- name: keys
  secret:
    secretName: {{ include "pcs.secret" . }}
    defaultMode: 0400
    items: [{key: keys.toml, path: keys.toml}]
{{- end }}
{{- if .Values.params }}
- name: params
  configMap:
    name: {{ include "pcs.fullname" . }}
    items: [{key: params.toml, path: params.toml}]
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ .Values.tls.secretName }}, defaultMode: 0400}
{{- end }}
{{- if .Values.tls.clientAuth.enabled }}
- name: client-ca
  secret:
    secretName: {{ .Values.tls.clientAuth.caSecretName }}
    defaultMode: 0400
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- include "pcs.clientVolume" . }}
{{- end -}}

{{/* The certificate that the chart's own scripts show. */}}
{{- define "pcs.clientMount" -}}
{{- if .Values.tls.clientAuth.enabled }}
- {name: client-tls, mountPath: /etc/pcs/client-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "pcs.clientVolume" -}}
{{- if .Values.tls.clientAuth.enabled }}
- name: client-tls
  secret: {secretName: {{ .Values.tls.clientAuth.clientSecretName }}, defaultMode: 0400}
{{- end }}
{{- end -}}

{{/*
One probe: (dict "root" $ "state" STATE "times" TIMES). The kubelet has no client certificate to show; where one is asked
for, the service is asked over its administration socket.
*/}}
{{- define "pcs.probe" -}}
{{- if .root.Values.tls.clientAuth.enabled }}
exec:
  command: [python3, -m, pcs_backend.probe, {{ .state }}]
{{- else }}
httpGet:
  path: /health/{{ .state }}
  port: api
  scheme: {{ ternary "HTTPS" "HTTP" .root.Values.tls.enabled }}
{{- end }}
{{ toYaml .times }}
{{- end -}}

{{/* How the pods spread: (dict "root" $ "track" TRACK). */}}
{{- define "pcs.topologySpread" -}}
{{- $places := dict "topology.kubernetes.io/zone" .root.Values.topologySpread.zone "kubernetes.io/hostname" .root.Values.topologySpread.host -}}
{{- range $key, $whenUnsatisfiable := $places }}
{{- if $whenUnsatisfiable }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $whenUnsatisfiable }}
  labelSelector:
    matchLabels:
      {{- include "pcs.selector" (dict "root" $.root "component" "backend") | nindent 6 }}
      track: {{ $.track }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The backend's pods of one track: (dict "root" $ "track" TRACK "name" NAME "image" OVERRIDES "replicas" NUMBER or nil). */}}
{{- define "pcs.backend" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ .name }}
  labels:
    {{- include "pcs.labels" (dict "root" $root "component" "backend") | nindent 4 }}
    track: {{ .track }}
spec:
  {{- if .replicas }}
  replicas: {{ include "pcs.text" .replicas }}
  {{- end }}
  serviceName: {{ include "pcs.fullname" $root }}-pods
  # A pod that reads a large log must not hold up the others; an update still goes pod by pod.
  podManagementPolicy: Parallel
  minReadySeconds: 10
  updateStrategy:
    type: RollingUpdate
  # A volume may hold requests without outcomes; docs/helm.md says how to find out before one is deleted by hand.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  selector:
    matchLabels:
      {{- include "pcs.selector" (dict "root" $root "component" "backend") | nindent 6 }}
      track: {{ .track }}
  template:
    metadata:
      labels:
        {{- include "pcs.selector" (dict "root" $root "component" "backend") | nindent 8 }}
        track: {{ .track }}
        {{- with $v.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # Settings are read once: a change of them starts the pods anew.
        checksum/config: {{ list (include "pcs.environment" $root) $v.params | toJson | sha256sum }}
        {{- if $v.secret.create }}
        checksum/secret: {{ $v.secret.values | toJson | sha256sum }}
        {{- end }}
        {{- with $v.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "pcs.podBase" $root | nindent 6 }}
      terminationGracePeriodSeconds: {{ include "pcs.graceSeconds" $root }}
      {{- with $v.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $v.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "pcs.topologySpread" . | trim }}
      topologySpreadConstraints:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: backend
          image: {{ include "pcs.image" . }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          command: [pcs-backend, serve]
          envFrom:
            - configMapRef:
                name: {{ include "pcs.fullname" $root }}-env
          {{- with include "pcs.secretEnvironment" $root | trim }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          ports:
            - {name: api, containerPort: 8080, protocol: TCP}
          startupProbe:
            {{- include "pcs.probe" (dict "root" $root "state" "startup" "times" $v.probes.startup) | trim | nindent 12 }}
          readinessProbe:
            {{- include "pcs.probe" (dict "root" $root "state" "ready" "times" $v.probes.readiness) | trim | nindent 12 }}
          livenessProbe:
            {{- include "pcs.probe" (dict "root" $root "state" "live" "times" $v.probes.liveness) | trim | nindent 12 }}
          lifecycle:
            preStop:
              exec:
                command: [python3, /etc/pcs/scripts/drain.py, {{ include "pcs.text" $v.drain.endpointSeconds | quote }}, {{ include "pcs.text" $v.drain.settleSeconds | quote }}{{ if $v.tls.clientAuth.enabled }}, /etc/pcs/client-tls{{ end }}]
          resources:
            {{- toYaml $v.resources | nindent 12 }}
          securityContext:
            {{- include "pcs.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /var/lib/pcs}
            - {name: tmp, mountPath: /tmp}
            - {name: scripts, mountPath: /etc/pcs/scripts, readOnly: true}
            {{- with include "pcs.fileMounts" $root | trim }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        - name: scripts
          configMap:
            name: {{ include "pcs.fullname" $root }}
            items: [{key: drain.py, path: drain.py}]
        {{- with include "pcs.fileVolumes" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
        labels:
          {{- include "pcs.selector" (dict "root" $root "component" "backend") | nindent 10 }}
          track: {{ .track }}
        {{- with $v.persistence.annotations }}
        annotations:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      spec:
        accessModes: [{{ $v.persistence.accessMode }}]
        {{- with $v.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $v.persistence.size }}
{{- end -}}

{{/* What a container needs and may do that runs a script of the chart's own. */}}
{{- define "pcs.scriptSecurity" -}}
resources:
  requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi}
  limits: {cpu: 500m, memory: 128Mi, ephemeral-storage: 64Mi}
securityContext:
  {{- include "pcs.containerSecurity" . | nindent 2 }}
{{- end -}}
