{{/* The prefix of all names: short enough for every suffix, and its own for every release. */}}
{{- define "modelyard.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-modelyard" .Release.Name) (contains "modelyard" .Release.Name) -}}
{{- end -}}
{{- if gt (len $name) 40 -}}
{{- printf "%s-%s" ($name | trunc 31 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/* The name of what belongs to no namespace: its own for every release of every namespace. */}}
{{- define "modelyard.clusterName" -}}
{{- $full := include "modelyard.fullname" . -}}
{{ printf "%s-%s" .Release.Namespace $full | trunc 54 | trimSuffix "-" }}-{{ printf "%s/%s" .Release.Namespace $full | sha256sum | trunc 8 }}
{{- end }}

{{- define "modelyard.runsNamespace" -}}
{{- .Values.runs.namespace | default .Release.Namespace -}}
{{- end }}

{{/* What marks the pods of this release. */}}
{{- define "modelyard.selector" -}}
app.kubernetes.io/name: modelyard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What marks the pods that workers start. */}}
{{- define "modelyard.runsSelector" -}}
app.kubernetes.io/managed-by: modelyard
{{- end }}

{{- define "modelyard.labels" -}}
{{ include "modelyard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "modelyard.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end }}

{{/* The address of a server for other pods, in whatever namespace: dict root, name. */}}
{{- define "modelyard.host" -}}
{{ include "modelyard.fullname" .root }}-{{ .name }}.{{ .root.Release.Namespace }}.svc
{{- end }}

{{- define "modelyard.address" -}}
http://{{ include "modelyard.host" . }}:{{ (get .root.Values .name).port }}
{{- end }}

{{/* The address of a server for a person's browser: dict root, name. */}}
{{- define "modelyard.url" -}}
{{- $part := get .root.Values .name -}}
{{- $ingress := .root.Values.ingress -}}
{{- $host := get $ingress.hosts .name -}}
{{- if $part.url -}}
{{ $part.url | trimSuffix "/" }}
{{- else if and $ingress.enabled $host -}}
{{ ternary "https" "http" (ne $ingress.tlsSecret "") }}://{{ $host }}
{{- else -}}
http://localhost:{{ $part.port }}
{{- end -}}
{{- end }}

{{/* The names by which a server may be asked for: dict root, name. Comma-separated, no ports. */}}
{{- define "modelyard.hosts" -}}
{{- $service := printf "%s-%s" (include "modelyard.fullname" .root) .name -}}
{{- $outside := (urlParse (include "modelyard.url" .)).hostname -}}
{{- $all := list "localhost" "127.0.0.1" $service (printf "%s.%s" $service .root.Release.Namespace) (include "modelyard.host" .) (printf "%s.cluster.local" (include "modelyard.host" .)) $outside -}}
{{- $all | uniq | join "," -}}
{{- end }}
