{{/* What every container of ours may not do. */}}
{{- define "modelyard.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
One container of the image: a dict root, name, secrets, spec, own.
  spec   command (args of the image's own first process, which reaps); env; for probes, socket or else port or health with ready and alive; mounts
  own    the part's values: resources, env
*/}}
{{- define "modelyard.container" -}}
- name: {{ .name }}
  image: {{ include "modelyard.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ .spec.command | toJson }}
  workingDir: /
  envFrom:
    - configMapRef: {name: {{ include "modelyard.fullname" .root }}-environment}
  {{- with include "modelyard.env" (dict "root" .root "secrets" (.spec.secrets | default list) "env" .spec.env "own" .own) }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .spec.port | default .spec.health }}
  ports:
    - {name: http, containerPort: {{ . }}}
  {{- end }}
  {{- include "modelyard.probes" .spec | nindent 2 }}
  resources: {{ .own.resources | toJson }}
  securityContext:
    {{- include "modelyard.confined" .root | nindent 4 }}
  volumeMounts:
    - {name: home, mountPath: /modelyard/home}
    - {name: tmp, mountPath: /tmp}
    {{- with .spec.mounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Of a server: its paths, asked as localhost, which every server takes. Of another: its socket. */}}
{{- define "modelyard.probes" -}}
{{- if or .port .health }}
{{- $header := list (dict "name" "Host" "value" "localhost") }}
startupProbe:
  httpGet: {path: {{ .alive | quote }}, port: http, httpHeaders: {{ $header | toJson }}}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 100
readinessProbe:
  httpGet: {path: {{ .ready | quote }}, port: http, httpHeaders: {{ $header | toJson }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  httpGet: {path: {{ .alive | quote }}, port: http, httpHeaders: {{ $header | toJson }}}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- else if .socket }}
{{- $ask := list "python" "-I" "-S" "-c" "import socket, sys; sys.exit(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))" (printf "/modelyard/home/sockets/%s" .socket) }}
startupProbe:
  exec: {command: {{ $ask | toJson }}}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 100
readinessProbe:
  exec: {command: {{ $ask | toJson }}}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 3
livenessProbe:
  exec: {command: {{ $ask | toJson }}}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}
{{- end }}

{{/* What is the same in every pod: a dict root, name, volumes, token. */}}
{{- define "modelyard.pod" -}}
serviceAccountName: {{ include "modelyard.fullname" .root }}-{{ .name }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .root.Values.pods.nodeSelector }}
nodeSelector: {{ . | toJson }}
{{- end }}
{{- with .root.Values.pods.tolerations }}
tolerations: {{ . | toJson }}
{{- end }}
{{- with .root.Values.pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: home
    emptyDir: {sizeLimit: 2Gi}
  - name: tmp
    emptyDir: {sizeLimit: 2Gi}
  {{- with .volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Labels and annotations of pods: a dict root, name. A changed environment starts them anew. */}}
{{- define "modelyard.podMetadata" -}}
labels:
  {{- include "modelyard.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .name }}
  {{- with .root.Values.pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  modelyard/environment: {{ printf "%s%s" (include "modelyard.environment" .root) (include "modelyard.cluster" .root) | sha256sum | trunc 16 }}
  {{- with .root.Values.pods.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The configuration of the cluster that workers read: what runs' pods have in common. */}}
{{- define "modelyard.cluster" -}}
{{- $runs := .Values.runs -}}
namespace: {{ include "modelyard.runsNamespace" . | quote }}
image: {{ $runs.image | default (include "modelyard.image" .) | quote }}
image_pull_policy: {{ .Values.image.pullPolicy }}
image_pull_secrets: {{ .Values.image.pullSecrets | toJson }}
service_account: {{ include "modelyard.fullname" . }}-runs
pipeline_service_account: {{ include "modelyard.fullname" . }}-pipelines
config_map: {{ include "modelyard.fullname" . }}-runs
{{- $secrets := include "modelyard.secrets" (dict "root" . "names" (include "modelyard.runsSecrets" . | fromJsonArray)) | fromYaml }}
{{- range $name, $from := $runs.secretEnv }}
{{- if not (hasKey $secrets $name) }}{{ $_ := set $secrets $name (dict "name" $from.secret "key" $from.key) }}{{ end }}
{{- end }}
secret_env: {{ $secrets | toJson }}
env: {{ merge (include "modelyard.derived" (dict "root" . "names" (include "modelyard.runsSecrets" . | fromJsonArray)) | fromYaml) $runs.env | toJson }}
nas: {{ $runs.nas | toJson }}
node_selector: {{ $runs.nodeSelector | toJson }}
tolerations: {{ $runs.tolerations | toJson }}
priority_class: {{ $runs.priorityClass | quote }}
gpu_runtime_class: {{ $runs.gpuRuntimeClass | quote }}
most_gpus: {{ $runs.mostGpus | toJson }}
nodes_may_come: {{ $runs.nodesMayCome }}
storage_class: {{ $runs.storageClass | quote }}
component_user: {{ $runs.componentUser | toJson }}
pending_minutes: {{ $runs.pendingMinutes }}
queue_minutes: {{ $runs.queueMinutes | toJson }}
finished_seconds: {{ $runs.finishedSeconds | int }}
grace_seconds: {{ $runs.graceSeconds | int }}
{{- end }}
