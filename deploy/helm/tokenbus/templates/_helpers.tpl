{{- define "tokenbus.labels" -}}
app.kubernetes.io/name: tokenbus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Labels by which a role's pods are found: (list $ "gateway"). */}}
{{- define "tokenbus.selector" -}}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "tokenbus.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "tokenbus.natsUrl" -}}
{{- if .Values.nats.enabled -}}
{{- $name := include "tokenbus.name" . -}}
{{- $urls := list -}}
{{- range $i := until (int .Values.nats.replicas) -}}
{{- $urls = append $urls (printf "nats://%s-nats-%d.%s-nats:4222" $name $i $name) -}}
{{- end -}}
{{- join "," $urls -}}
{{- else -}}
{{- required "nats.url is needed where nats.enabled is false" .Values.nats.url -}}
{{- end -}}
{{- end }}

{{- define "tokenbus.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tokenbus.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* Environment of a role: (list $ "gateway"). */}}
{{- define "tokenbus.env" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
- name: TOKENBUS_NATS
  value: {{ include "tokenbus.natsUrl" $ | quote }}
- name: TOKENBUS_NAMESPACE
  value: {{ $.Values.namespace | quote }}
- name: TOKENBUS_LOG
  value: {{ $.Values.log | quote }}
{{- range $name, $value := $.Values.otel }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if get $.Values.nats.credentials $role }}
- name: TOKENBUS_NATS_CREDS
  value: /etc/tokenbus/creds/nats.creds
{{- end }}
{{- if $.Values.nats.ca }}
- name: TOKENBUS_NATS_CA
  value: /etc/tokenbus/ca/ca.crt
{{- end }}
{{- end }}

{{- define "tokenbus.mounts" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
- { name: tmp, mountPath: /tmp }
- { name: state, mountPath: /var/lib/tokenbus }
{{- if get $.Values.nats.credentials $role }}
- { name: creds, mountPath: /etc/tokenbus/creds, readOnly: true }
{{- end }}
{{- if $.Values.nats.ca }}
- { name: ca, mountPath: /etc/tokenbus/ca, readOnly: true }
{{- end }}
{{- end }}

{{- define "tokenbus.volumes" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
- { name: tmp, emptyDir: {} }
- { name: state, emptyDir: {} }
{{- with get $.Values.nats.credentials $role }}
- name: creds
  secret: { secretName: {{ . }}, defaultMode: 288 }
{{- end }}
{{- with $.Values.nats.ca }}
- name: ca
  secret: { secretName: {{ . }} }
{{- end }}
{{- end }}

{{/* One of a kind on each node, where there are enough of them: (list $ "gateway"). */}}
{{- define "tokenbus.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "tokenbus.selector" . | nindent 6 }}
{{- end }}
