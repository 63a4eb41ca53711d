{{/* An object of manifests/, in the namespace of the release. Takes (dict "root" $ "object" OBJECT). */}}
{{- define "runwire.object" -}}
{{- if .object.metadata.namespace }}{{ $_ := set .object.metadata "namespace" .root.Release.Namespace }}{{ end -}}
---
{{ toYaml .object }}
{{ end -}}

{{/* The image of one part. Takes (dict "root" $ "image" VALUES). */}}
{{- define "runwire.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{/* Where people and alerts find the assistant. */}}
{{- define "runwire.externalUrl" -}}
{{ .Values.assistant.externalUrl | default (printf "http://runwire-assistant.%s.svc:8080" .Release.Namespace) }}
{{- end -}}

{{/* Whom the assistant asks. */}}
{{- define "runwire.prometheus" -}}
{{- $own := printf "http://runwire-prometheus.%s.svc:9090" .Release.Namespace -}}
{{ .Values.assistant.prometheus | default (ternary $own "http://prometheus-operated.monitoring.svc:9090" .Values.prometheus.enabled) }}
{{- end -}}

{{/* A container's variables, those of a name that comes again taking the place of the first. Takes (dict "env" LIST "more" LIST). */}}
{{- define "runwire.env" -}}
{{- $said := dict -}}
{{- range .more }}{{ $_ := set $said .name . }}{{ end -}}
{{- $all := list -}}
{{- range .env -}}
{{- $all = append $all (get $said .name | default .) -}}
{{- $_ := unset $said .name -}}
{{- end -}}
{{- range .more }}{{ if hasKey $said .name }}{{ $all = append $all . }}{{ end }}{{ end -}}
{{ dict "env" $all | toYaml }}
{{- end -}}

{{/* A key's value as a variable holds it: lists with commas between them, keys of its own with semicolons, and numbers with all their digits. */}}
{{- define "runwire.value" -}}
{{- $parts := list -}}
{{- if kindIs "map" . -}}
{{- range $key, $value := . }}{{ $parts = append $parts (printf "%s=%s" $key (include "runwire.value" $value)) }}{{ end -}}
{{- join ";" $parts -}}
{{- else if kindIs "slice" . -}}
{{- range . }}{{ $parts = append $parts (include "runwire.value" .) }}{{ end -}}
{{- join "," $parts -}}
{{- else if kindIs "string" . -}}
{{- . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}
