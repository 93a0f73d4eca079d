{{- define "shop.account" -}}
{{- if .Values.serviceAccount.create -}}{{ include "base.fullname" . }}{{- else -}}default{{- end -}}
{{- end -}}

{{/* A hook's Job, of its name, the events it belongs to, its weight and what it runs. */}}
{{- define "shop.hook" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ printf "%s-%s" (include "base.fullname" .root) .name }}
  labels: {{- include "base.labels" .root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .on | quote }}
    helm.sh/hook-weight: {{ .weight | default 0 | quote }}
    helm.sh/hook-delete-policy: {{ .delete | default "before-hook-creation,hook-succeeded" | quote }}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels: {app.kubernetes.io/component: hook}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      {{- with .account }}
      serviceAccountName: {{ . }}
      {{- end }}
      containers:
        - name: {{ .name }}
          {{- include "base.image" .root | nindent 10 }}
          command: [sh, -c, {{ .run | quote }}]
{{- end -}}
