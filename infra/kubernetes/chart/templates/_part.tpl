{{/*
A part that goes on for ever: ServiceAccount, Deployment, Service, PodDisruptionBudget and
NetworkPolicy. A further part is one more file like web.yaml. A dict root, name, spec:

  command     the command line
  replicas    how many; 1 by default
  alone       whether a second one may not even run during an upgrade
  port        of a server, with ready and alive: the paths of its probes
  health      a port that only probes ask, with ready and alive
  socket      of a process without a port: the Unix socket that accepts while it is well
  secrets     names that modelyard.secrets knows
  env         variables beside those of modelyard.environment
  token       whether it talks to the API server
  mounts, volumes, before    further mounts and volumes, and containers that run before it
  clients     who may talk to it, and
  talks       whom it talks to: names that modelyard.peers knows
*/}}
{{- define "modelyard.part" -}}
{{- $root := .root }}
{{- $name := .name }}
{{- $spec := .spec }}
{{- $own := get $root.Values $name }}
{{- $full := printf "%s-%s" (include "modelyard.fullname" $root) $name }}
{{- include "modelyard.serviceAccount" (dict "root" $root "name" $name) }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "modelyard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  replicas: {{ $spec.replicas | default 1 | int }}
  revisionHistoryLimit: 5
  strategy:
    {{- if $spec.alone }}
    type: Recreate
    {{- else }}
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
    {{- end }}
  selector:
    matchLabels:
      {{- include "modelyard.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $name }}
  template:
    metadata:
      {{- include "modelyard.podMetadata" (dict "root" $root "name" $name) | nindent 6 }}
    spec:
      {{- include "modelyard.pod" (dict "root" $root "name" $name "volumes" $spec.volumes "token" $spec.token) | nindent 6 }}
      terminationGracePeriodSeconds: 30
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "modelyard.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $name }}
      {{- if $spec.before }}
      initContainers:
        {{- range $spec.before }}
        {{- include "modelyard.container" (dict "root" $root "name" .name "spec" . "own" $own) | nindent 8 }}
        {{- end }}
      {{- end }}
      containers:
        {{- include "modelyard.container" (dict "root" $root "name" $name "spec" $spec "own" $own) | nindent 8 }}
{{- if $spec.port }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "modelyard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  type: ClusterIP
  selector:
    {{- include "modelyard.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
  ports:
    - {name: http, port: {{ $spec.port }}, targetPort: http, protocol: TCP}
{{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "modelyard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "modelyard.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $name }}
{{- include "modelyard.network" (dict "root" $root "name" $name "spec" $spec) }}
{{- end }}

{{/* A dict root, name, and for another namespace and values than the part's own: namespace, own. */}}
{{- define "modelyard.serviceAccount" }}
{{- $own := .own | default (get .root.Values .name) }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "modelyard.fullname" .root }}-{{ .name }}
  namespace: {{ .namespace | default .root.Release.Namespace | quote }}
  labels:
    {{- include "modelyard.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  {{- with $own.serviceAccountAnnotations }}
  annotations: {{ . | toJson }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
