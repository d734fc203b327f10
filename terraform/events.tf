# What nightscore writes into Cloud Logging (include/nightscore/schemas/events.json), counted and measured.

locals {
  events_log = "projects/${var.project}/logs/${var.prefix}"
  event      = { for name in ["run_planned", "gate_judged", "drift_measured", "run_ended", "deadline_missed"] : name => "logName=\"${local.events_log}\" AND jsonPayload.event=\"${name}\"" }

  # How often, by the labels.
  counters = {
    runs_ended       = { event = "run_ended", labels = ["status", "stopped_at"], where = "" }
    gates_judged     = { event = "gate_judged", labels = ["gate", "verdict"], where = "" }
    deadlines_missed = { event = "deadline_missed", labels = [], where = "" }
    # Compared in the filter: a distribution knows a value by its bucket alone.
    drift_high        = { event = "drift_measured", labels = [], where = " AND jsonPayload.psi>${var.alerts.max_psi}" }
    bytes_billed_high = { event = "run_ended", labels = [], where = " AND jsonPayload.bytes_billed>${format("%d", var.alerts.max_bytes_billed)}" }
  }

  # How much, by pipeline.
  measures = {
    rows_published      = { event = "run_ended", field = "rows_published", unit = "1", smallest = 1 }
    rows_per_second     = { event = "run_ended", field = "rows_per_second", unit = "1/s", smallest = 1 }
    run_seconds         = { event = "run_ended", field = "seconds", unit = "s", smallest = 1 }
    bytes_billed        = { event = "run_ended", field = "bytes_billed", unit = "By", smallest = 1048576 }
    queue_delay_seconds = { event = "run_planned", field = "queue_delay_seconds", unit = "s", smallest = 0.1 }
    drift_psi           = { event = "drift_measured", field = "psi", unit = "1", smallest = 0.001 }
  }
}

resource "google_logging_metric" "counter" {
  for_each = local.counters

  project     = var.project
  name        = "${local.name}/${each.key}"
  description = "Events ${each.value.event} of nightscore."
  filter      = "${local.event[each.value.event]}${each.value.where}"

  label_extractors = { for it in concat(["pipeline"], each.value.labels) : it => "EXTRACT(jsonPayload.${it})" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    dynamic "labels" {
      for_each = concat(["pipeline"], each.value.labels)

      content {
        key        = labels.value
        value_type = "STRING"
      }
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_logging_metric" "measure" {
  for_each = local.measures

  project         = var.project
  name            = "${local.name}/${each.key}"
  description     = "${each.value.field} of events ${each.value.event} of nightscore."
  filter          = local.event[each.value.event]
  value_extractor = "EXTRACT(jsonPayload.${each.value.field})"

  label_extractors = { pipeline = "EXTRACT(jsonPayload.pipeline)" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = each.value.unit

    labels {
      key        = "pipeline"
      value_type = "STRING"
    }
  }

  bucket_options {
    exponential_buckets { # each a quarter larger than the one before: 10 decades in 104 buckets
      scale              = each.value.smallest
      growth_factor      = 1.25
      num_finite_buckets = 104
    }
  }

  depends_on = [google_project_service.this]
}

# What a metric is called in PromQL. Metrics of logs exist once for each kind of resource that writes them, so it is said.
locals {
  promql = {
    for name in concat(keys(local.counters), keys(local.measures)) :
    name => "logging_googleapis_com:user_${replace("${local.name}/${name}", "/[^a-zA-Z0-9_]/", "_")}"
  }
  resource = "monitored_resource=\"global\""
}
