# A network without a way to the internet: Google's APIs are reached by their restricted addresses, and nothing else is.

locals {
  google_apis = "199.36.153.4/30" # restricted.googleapis.com: the APIs that VPC Service Controls know
  google_zones = {
    googleapis = "googleapis.com."
    pkg-dev    = "pkg.dev."
    composer   = "composer.cloud.google.com."
  }
}

resource "google_compute_network" "this" {
  project                         = var.project
  name                            = local.name
  auto_create_subnetworks         = false
  delete_default_routes_on_create = true
  routing_mode                    = "REGIONAL"

  depends_on = [google_project_service.this]
}

resource "google_compute_subnetwork" "this" {
  project                  = var.project
  name                     = "${local.name}-airflow"
  region                   = var.region
  network                  = google_compute_network.this.id
  ip_cidr_range            = var.network.subnet
  private_ip_google_access = true
  stack_type               = "IPV4_ONLY"

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.5
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_route" "google_apis" {
  project          = var.project
  name             = "${local.name}-google-apis"
  network          = google_compute_network.this.id
  dest_range       = local.google_apis
  next_hop_gateway = "default-internet-gateway" # the addresses are Google's own: packets do not leave its network
  priority         = 1000
}

resource "google_dns_managed_zone" "google" {
  for_each = local.google_zones

  project     = var.project
  name        = "${local.name}-${each.key}"
  dns_name    = each.value
  description = "${each.value} by its restricted addresses."
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.this.id
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_dns_record_set" "google_address" {
  for_each = local.google_zones

  project      = var.project
  managed_zone = google_dns_managed_zone.google[each.key].name
  name         = each.value
  type         = "A"
  ttl          = 300
  rrdatas      = [for host in range(4) : cidrhost(local.google_apis, host)]
}

resource "google_dns_record_set" "google_names" {
  for_each = local.google_zones

  project      = var.project
  managed_zone = google_dns_managed_zone.google[each.key].name
  name         = "*.${each.value}"
  type         = "CNAME"
  ttl          = 300
  rrdatas      = [each.value]
}

resource "google_compute_firewall" "deny_egress" {
  project            = var.project
  name               = "${local.name}-deny-egress"
  network            = google_compute_network.this.id
  description        = "Nothing leaves but what is allowed below."
  direction          = "EGRESS"
  priority           = 65000
  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }
  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "allow_google_apis" {
  project            = var.project
  name               = "${local.name}-allow-google-apis"
  network            = google_compute_network.this.id
  description        = "Google's APIs by their restricted addresses."
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = [local.google_apis]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

resource "google_compute_firewall" "allow_internal" {
  project            = var.project
  name               = "${local.name}-allow-internal"
  network            = google_compute_network.this.id
  description        = "Within the network, and to services that are reached by private service access."
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = compact([var.network.subnet, var.network.private_services])

  allow {
    protocol = "tcp"
  }
}

# Managed Airflow Gen 3 needs no such range. A Cloud SQL database of MLflow or of outcomes does.
resource "google_compute_global_address" "private_services" {
  count = var.network.private_services == null ? 0 : 1

  project       = var.project
  name          = "${local.name}-private-services"
  network       = google_compute_network.this.id
  address_type  = "INTERNAL"
  purpose       = "VPC_PEERING"
  address       = split("/", var.network.private_services)[0]
  prefix_length = tonumber(split("/", var.network.private_services)[1])
}

resource "google_service_networking_connection" "private_services" {
  count = var.network.private_services == null ? 0 : 1

  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = google_compute_global_address.private_services[*].name
}
