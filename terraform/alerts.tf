# When people are told. What each alert means and what to do stands in docs/runbook.md, under its name.

locals {
  runbook = "${local.repository}/blob/${var.github.branch}/docs/runbook.md"

  alerts = merge(
    {
      "run failed" = {
        severity = "ERROR"
        query    = "sum by (pipeline) (increase(${local.promql.runs_ended}{${local.resource}, status=\"failed\"}[10m])) > 0"
        text     = "A run of the pipeline $${metric_or_resource.label.pipeline} failed. Nothing was published; the partition is as it was."
      }
      "run refused" = { # by a step that is no gate: the plan, the wait for data, the publication
        severity = "CRITICAL"
        query    = "sum by (pipeline, stopped_at) (increase(${local.promql.runs_ended}{${local.resource}, status=\"refused\", stopped_at!~\"feature_gate|prediction_gate\"}[10m])) > 0"
        text     = "A run of the pipeline $${metric_or_resource.label.pipeline} was refused at $${metric_or_resource.label.stopped_at}. The partition is as it was."
      }
      "deadline missed" = {
        severity = "CRITICAL"
        query    = "sum by (pipeline) (increase(${local.promql.deadlines_missed}{${local.resource}}[10m])) > 0"
        text     = "The deadline of the pipeline $${metric_or_resource.label.pipeline} has passed, and its run has not ended."
      }
      "gate stopped" = {
        severity = "WARNING"
        query    = "sum by (pipeline, gate) (increase(${local.promql.gates_judged}{${local.resource}, verdict=\"stop\"}[10m])) > 0"
        text     = "A gate of the pipeline $${metric_or_resource.label.pipeline} stopped its run. Nothing was published."
      }
      "drift high" = {
        severity = "WARNING"
        query    = "sum by (pipeline) (increase(${local.promql.drift_high}{${local.resource}}[10m])) > 0"
        text     = "The predictions of $${metric_or_resource.label.pipeline} are distributed otherwise than the night before: a PSI above ${var.alerts.max_psi}."
      }
      "bytes billed high" = {
        severity = "WARNING"
        query    = "sum by (pipeline) (increase(${local.promql.bytes_billed_high}{${local.resource}}[10m])) > 0"
        text     = "A run of $${metric_or_resource.label.pipeline} processed more than ${format("%d", var.alerts.max_bytes_billed)} bytes."
      }
    },
    { for name, it in var.pipelines : "not published in time: ${name}" => {
      severity = "CRITICAL"
      # In the two hours from published_by on, whatever their date: fewer than one publication in the twelve before.
      query = join(" and on() ", [
        "(sum(increase(${local.promql.runs_ended}{${local.resource}, pipeline=\"${name}\", status=\"published\"}[12h])) or vector(0)) < 1",
        "(hour() * 60 + minute() - ${local.minute[name]} + 1440) % 1440 < 120",
      ])
      text = "${name} has not published by ${it.published_by} UTC, whether a run began or not."
    } },
  )

  minute = { for name, it in var.pipelines : name => tonumber(split(":", it.published_by)[0]) * 60 + tonumber(split(":", it.published_by)[1]) }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alerts.emails)

  project      = var.project
  display_name = "${local.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }

  depends_on = [google_project_service.this]
}

locals {
  channels = concat([for it in google_monitoring_notification_channel.email : it.id], var.alerts.channels)
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  project               = var.project
  display_name          = "${local.name}: ${each.key}"
  combiner              = "OR"
  enabled               = true
  severity              = each.value.severity
  notification_channels = local.channels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query                     = each.value.query
      duration                  = "0s"
      evaluation_interval       = "60s"
      disable_metric_validation = true # a metric of logs is known once the first entry was counted
    }
  }

  documentation {
    mime_type = "text/markdown"
    subject   = "${local.name}: ${each.key}"
    content   = each.value.text

    links {
      display_name = "What to do"
      url          = "${local.runbook}#${replace(split(":", each.key)[0], " ", "-")}"
    }
  }

  alert_strategy {
    auto_close           = "86400s"
    notification_prompts = ["OPENED", "CLOSED"]
  }

  depends_on = [google_logging_metric.counter]
}
