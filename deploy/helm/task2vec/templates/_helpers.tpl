{{- define "task2vec.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "task2vec.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Of (dict "root" $ "component" "api"): what selectors go by, which must not change. */ -}}
{{- define "task2vec.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "task2vec.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "task2vec.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end -}}
{{- end }}

{{- /* Of (dict "root" $ "of" .Values.api.image) */ -}}
{{- define "task2vec.image" -}}
{{- if .of.digest }}{{ .of.repository }}@{{ .of.digest }}{{ else }}{{ .of.repository }}:{{ .of.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "task2vec.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "task2vec.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "task2vec.env" -}}
- name: TASK2VEC_BLOB_URL
  value: {{ .Values.blobUrl | quote }}
- name: TASK2VEC_SHUTDOWN_GRACE_SECONDS
  value: {{ .Values.shutdownGraceSeconds | quote }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "task2vec.envFrom" -}}
- secretRef:
    name: {{ .Values.databaseSecret }}
{{- with .Values.blobSecret }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- end }}

{{- /* Of .Values.api or .Values.worker: all that a pod writes to. */ -}}
{{- define "task2vec.volumes" -}}
- name: data
  emptyDir:
    sizeLimit: {{ .dataSize }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .tmpSize }}
{{- end }}

{{- define "task2vec.mounts" -}}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- end }}
