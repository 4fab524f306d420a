{{/* What every process of ours has in its environment, in whatever pod. */}}
{{- define "modelyard.environment" -}}
PREFECT_API_URL: {{ include "modelyard.address" (dict "root" . "name" "prefect") }}/api
PREFECT_UI_URL: {{ include "modelyard.url" (dict "root" . "name" "prefect") }}
MLFLOW_TRACKING_URI: {{ include "modelyard.address" (dict "root" . "name" "mlflow") }}
MLFLOW_REGISTRY_URI: {{ include "modelyard.address" (dict "root" . "name" "mlflow") }}
MODELYARD_MLFLOW_URL: {{ include "modelyard.url" (dict "root" . "name" "mlflow") }}
MODELYARD_WEB_URL: {{ include "modelyard.url" (dict "root" . "name" "web") }}
{{- with .Values.storage.endpoint }}
MODELYARD_S3_ENDPOINT_URL: {{ . | quote }}
{{- end }}
{{- with .Values.storage.region }}
MODELYARD_S3_REGION: {{ . | quote }}
{{- end }}
{{- with .Values.instanceTypes }}
MODELYARD_INSTANCE_TYPES_SETTINGS: {{ toJson . | quote }}
{{- end }}
MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT: "true"
MLFLOW_DISABLE_TELEMETRY: "true"
MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR: "false"
PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: "false"
PREFECT_SERVER_ANALYTICS_ENABLED: "false"
PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: ignore
PREFECT_CLIENT_RETRY_EXTRA_CODES: "500"
PREFECT_CLIENT_MAX_RETRIES: "6"
PREFECT_CLIENT_RETRY_JITTER_FACTOR: "0.2"
DO_NOT_TRACK: "true"
GIT_PYTHON_REFRESH: quiet
PYTHONUNBUFFERED: "1"
{{- end }}

{{/* Where a process of this release keeps what it need not keep. */}}
{{- define "modelyard.homeEnvironment" -}}
HOME: /modelyard/home
MODELYARD_HOME: /modelyard/home
PREFECT_HOME: /modelyard/home/prefect
PREFECT_PROFILES_PATH: /modelyard/home/prefect/profiles.toml
{{- end }}

{{/* The Secrets that pods of runs read: names of the below, as JSON. */}}
{{- define "modelyard.runsSecrets" -}}
{{- list "catalogue" "storage" "door" | toJson -}}
{{- end }}

{{/* Secrets that a process reads, by variable: {VARIABLE: {name, key}}. A dict root, names. */}}
{{- define "modelyard.secrets" -}}
{{- $values := .root.Values -}}
{{- range .names }}
{{- if eq . "catalogue" }}
MODELYARD_DATABASE_URL: {{ dict "name" $values.database.catalogue.secret "key" $values.database.catalogue.key | toJson }}
{{- else if eq . "prefect-database" }}
PREFECT_API_DATABASE_CONNECTION_URL: {{ dict "name" $values.database.prefect.secret "key" $values.database.prefect.key | toJson }}
PREFECT_SERVER_DATABASE_CONNECTION_URL: {{ dict "name" $values.database.prefect.secret "key" $values.database.prefect.key | toJson }}
{{- else if eq . "mlflow-database" }}
_MLFLOW_SERVER_FILE_STORE: {{ dict "name" $values.database.mlflow.secret "key" $values.database.mlflow.key | toJson }}
_MLFLOW_SERVER_REGISTRY_STORE: {{ dict "name" $values.database.mlflow.secret "key" $values.database.mlflow.key | toJson }}
{{- else if and (eq . "storage") $values.storage.credentials.secret }}
MODELYARD_S3_ACCESS_KEY_ID: {{ dict "name" $values.storage.credentials.secret "key" $values.storage.credentials.accessKeyId | toJson }}
MODELYARD_S3_SECRET_ACCESS_KEY: {{ dict "name" $values.storage.credentials.secret "key" $values.storage.credentials.secretAccessKey | toJson }}
{{- else if and (eq . "mlflow-storage") $values.storage.credentials.secret }}
AWS_ACCESS_KEY_ID: {{ dict "name" $values.storage.credentials.secret "key" $values.storage.credentials.accessKeyId | toJson }}
AWS_SECRET_ACCESS_KEY: {{ dict "name" $values.storage.credentials.secret "key" $values.storage.credentials.secretAccessKey | toJson }}
{{- else if and (eq . "door") $values.door.enabled }}
MLFLOW_TRACKING_PASSWORD: {{ include "modelyard.credential" $.root }}
{{- else if and (eq . "server-door") $values.door.enabled }}
MODELYARD_CREDENTIAL: {{ include "modelyard.credential" $.root }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Secret with the credential that opens the servers, and its key. */}}
{{- define "modelyard.credential" -}}
{{- $made := printf "%s-door" (include "modelyard.fullname" .) -}}
{{- dict "name" (.Values.door.secret | default $made) "key" .Values.door.key | toJson -}}
{{- end }}

{{/*
Variables that are made of secrets, by variable, in the form that the kubelet fills in. Those that
they name come before them. A dict root, names.
*/}}
{{- define "modelyard.derived" -}}
{{- if .root.Values.door.enabled }}
{{- if has "door" .names }}
MLFLOW_TRACKING_USERNAME: modelyard
PREFECT_API_AUTH_STRING: modelyard:$(MLFLOW_TRACKING_PASSWORD)
{{- end }}
{{- if has "prefect-door" .names }}
PREFECT_SERVER_API_AUTH_STRING: modelyard:$(MODELYARD_CREDENTIAL)
{{- end }}
{{- end }}
{{- end }}

{{/* The env of a container: a dict root, secrets (names of the above), env, own (the part's values). */}}
{{- define "modelyard.env" -}}
{{- range $name, $value := merge (dict) (.own.env | default dict) (.env | default dict) }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- $secrets := include "modelyard.secrets" (dict "root" .root "names" .secrets) | fromYaml }}
{{- range $name, $reference := $secrets }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {{ $reference | toJson }}
{{- end }}
{{- range $name, $value := include "modelyard.derived" (dict "root" .root "names" .secrets) | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
