# One page for the morning: did every pipeline publish, how much, how fast, at what cost, and is it drifting.

locals {
  charts = [
    { title = "Runs by how they ended", query = "sum by (pipeline, status) (increase(${local.promql.runs_ended}{${local.resource}}[1h]))", type = "STACKED_BAR" },
    { title = "Gates that warned or stopped", query = "sum by (pipeline, gate, verdict) (increase(${local.promql.gates_judged}{${local.resource}, verdict!=\"pass\"}[1h]))", type = "STACKED_BAR" },
    { title = "Rows published", query = local.mean.rows_published, type = "LINE" },
    { title = "Rows per second", query = local.mean.rows_per_second, type = "LINE" },
    { title = "Seconds from plan to end", query = local.mean.run_seconds, type = "LINE" },
    { title = "Seconds that runs waited to begin", query = local.mean.queue_delay_seconds, type = "LINE" },
    { title = "Bytes billed per run", query = local.mean.bytes_billed, type = "LINE" },
    { title = "Drift (PSI against the partition before)", query = local.mean.drift_psi, type = "LINE" },
  ]

  mean = {
    for name in keys(local.measures) : name => join(" / ", [
      for part in ["sum", "count"] : "sum by (pipeline) (increase(${local.promql[name]}_${part}{${local.resource}}[1h]))"
    ])
  }
}

resource "google_monitoring_dashboard" "this" {
  project = var.project

  dashboard_json = jsonencode({
    displayName = "${local.name}: nights"
    mosaicLayout = {
      columns = 48
      tiles = concat(
        [for index, chart in local.charts : {
          xPos   = index % 2 * 24
          yPos   = floor(index / 2) * 16
          width  = 24
          height = 16
          widget = {
            title = chart.title
            xyChart = {
              dataSets = [{
                plotType        = chart.type
                targetAxis      = "Y1"
                timeSeriesQuery = { prometheusQuery = chart.query }
              }]
            }
          }
        }],
        [{
          xPos   = 0
          yPos   = ceil(length(local.charts) / 2) * 16
          width  = 48
          height = 16
          widget = {
            title = "Events"
            logsPanel = {
              filter        = "logName=\"${local.events_log}\""
              resourceNames = ["projects/${var.project}"]
            }
          }
        }],
      )
    }
  })

  depends_on = [google_logging_metric.counter, google_logging_metric.measure]
}
