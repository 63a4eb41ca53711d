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
