{{/* Where the image comes from: what holds for all charts goes before what a chart says. */}}
{{- define "base.image" -}}
{{- $registry := (.Values.global).registry | default .Values.image.registry -}}
image: {{ printf "%s/%s:%s" $registry .Values.image.repository (.Values.image.tag | default .Chart.AppVersion | toString) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | default "IfNotPresent" }}
{{- end -}}

{{/* A container that serves its folder, as both servers of this application are. */}}
{{- define "base.web" -}}
name: {{ .Chart.Name }}
{{ include "base.image" . }}
command: [httpd, -f, -p, {{ .Values.port | quote }}, -h, /www]
ports:
  - name: http
    containerPort: {{ .Values.port }}
readinessProbe:
  httpGet: {path: /, port: http}
  periodSeconds: 1
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
