{{/* The pods of a part: a dict root, name. */}}
{{- define "modelyard.partPeer" -}}
namespaceSelector:
  matchLabels: {kubernetes.io/metadata.name: {{ .root.Release.Namespace }}}
podSelector:
  matchLabels:
    {{- include "modelyard.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "modelyard.runsPeer" -}}
namespaceSelector:
  matchLabels: {kubernetes.io/metadata.name: {{ include "modelyard.runsNamespace" . }}}
podSelector:
  matchLabels:
    {{- include "modelyard.runsSelector" . | nindent 4 }}
{{- end }}

{{/* An egress rule to addresses: a dict cidrs, ports. */}}
{{- define "modelyard.outside" -}}
- to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{/* The ports of the object storage, as JSON: those of the policy, and that of its address. */}}
{{- define "modelyard.storagePorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.storage.ports }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- with .Values.storage.endpoint -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{/* Who may come: a dict root, clients, port. A client is "people", "runs" or a part. */}}
{{- define "modelyard.ingressRules" -}}
{{- $root := .root }}
{{- $from := list }}
{{- range .clients }}
{{- if eq . "people" }}
{{- $from = concat $from $root.Values.networkPolicy.clients }}
{{- else if eq . "runs" }}
{{- $from = append $from (include "modelyard.runsPeer" $root | fromYaml) }}
{{- else }}
{{- $from = append $from (include "modelyard.partPeer" (dict "root" $root "name" .) | fromYaml) }}
{{- end }}
{{- end }}
{{- if $from }}
- from: {{ $from | toJson }}
  {{- with .port }}
  ports:
    - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* Whom to go to: a dict root, talks. One is "database", "storage", "apiServer", "runs" or a part. */}}
{{- define "modelyard.egressRules" -}}
{{- $root := .root }}
{{- $policy := .root.Values.networkPolicy }}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ $policy.dns.namespace }}}
    {{- range $policy.dns.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- range .talks }}
{{- if eq . "storage" }}
{{ include "modelyard.outside" (dict "cidrs" $policy.storage.cidrs "ports" (include "modelyard.storagePorts" $root | fromJsonArray)) }}
{{- else if has . (list "database" "apiServer") }}
{{ include "modelyard.outside" (get $policy .) }}
{{- else if eq . "runs" }}
- to:
    - {{ include "modelyard.runsPeer" $root | nindent 6 | trim }}
{{- else }}
- to:
    - {{ include "modelyard.partPeer" (dict "root" $root "name" .) | nindent 6 | trim }}
  ports:
    - {protocol: TCP, port: {{ (get $root.Values .).port }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The NetworkPolicy of a part: a dict root, name, spec (clients, talks, port). */}}
{{- define "modelyard.network" }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "modelyard.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "modelyard.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  podSelector:
    matchLabels:
      {{- include "modelyard.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
  policyTypes: [Ingress, Egress]
  {{- with include "modelyard.ingressRules" (dict "root" .root "clients" (.spec.clients | default list) "port" .spec.port) | trim }}
  ingress:
    {{- . | nindent 4 }}
  {{- end }}
  egress:
    {{- include "modelyard.egressRules" (dict "root" .root "talks" (.spec.talks | default list)) | trim | nindent 4 }}
    {{- with .spec.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
