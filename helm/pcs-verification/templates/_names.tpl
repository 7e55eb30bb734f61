{{/* Names, labels, and values as text. */}}

{{- define "pcs.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: suffixes, ordinals and the hashes of a StatefulSet's pods must fit into 63. */}}
{{- define "pcs.fullname" -}}
{{- $name := include "pcs.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What never changes about a component's pods: (dict "root" $ "component" NAME). */}}
{{- define "pcs.selector" -}}
app.kubernetes.io/name: {{ include "pcs.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "pcs.labels" -}}
{{ include "pcs.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pcs-verification
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pcs.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "pcs.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end -}}
{{- end -}}

{{- define "pcs.secret" -}}
{{- if .Values.secret.create }}{{ include "pcs.fullname" . }}{{ else }}{{ .Values.secret.existing }}{{ end -}}
{{- end -}}

{{/* The image of a track: (dict "root" $ "image" OVERRIDES). The digest of one image is none of another's tag. */}}
{{- define "pcs.image" -}}
{{- $image := .root.Values.image -}}
{{- $own := or .image.tag .image.digest -}}
{{- $tag := ternary .image.tag (default .root.Chart.AppVersion $image.tag) (not (empty $own)) -}}
{{- $digest := ternary .image.digest $image.digest (not (empty $own)) -}}
{{- if $digest }}{{ $image.repository }}@{{ $digest }}{{ else }}{{ $image.repository }}:{{ $tag }}{{ end -}}
{{- end -}}

{{/* A number in full: Helm reads integers as floats and would write 1.34217728e+08. */}}
{{- define "pcs.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "pcs.url" -}}
{{ ternary "https" "http" .Values.tls.enabled }}://{{ include "pcs.fullname" . }}.{{ .Release.Namespace }}.svc:{{ include "pcs.text" .Values.service.port }}
{{- end -}}

{{/* How long a pod may take to end: what happens before SIGTERM, three times DRAIN_TIMEOUT_S (docs/operations.md), spare. */}}
{{- define "pcs.graceSeconds" -}}
{{- $before := addf .Values.drain.endpointSeconds .Values.drain.settleSeconds -}}
{{- printf "%.0f" (ceil (addf $before (mulf 3 .Values.env.drainTimeoutS) 15)) -}}
{{- end -}}

{{/* How the canary's series are told from others. */}}
{{- define "pcs.canarySelector" -}}
{{- $own := printf "namespace=%q,service=%q,track=\"canary\"" .Release.Namespace (include "pcs.fullname" .) -}}
{{- default $own .Values.canary.gate.selector -}}
{{- end -}}
