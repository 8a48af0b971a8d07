==== bettley
# Made by the overlay `vault`.

cluster_name = "goldentooth"
ui = true
# Memory of a Pi is never swapped (no node has swap), and locking it would need a capability.
disable_mlock = true

api_addr = "https://10.4.0.11:8200"
cluster_addr = "https://10.4.0.11:8201"

listener "tcp" {
  address = "10.4.0.11:8200"
  cluster_address = "10.4.0.11:8201"
  tls_cert_file = "/run/vault/tls/cert.pem"
  tls_key_file = "/run/vault/tls/key.pem"
  telemetry {
    unauthenticated_metrics_access = true
  }
}

storage "raft" {
  path = "/opt/vault/data/raft"
  # The name, not the life: a node that lost its data joins again as the one that it was.
  node_id = "bettley"

  retry_join {
    leader_api_addr = "https://10.4.0.12:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }

  retry_join {
    leader_api_addr = "https://10.4.0.13:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }
}

# Unseals itself. Without `vault_seal_key` in cluster.toml somebody has to, at every start.
seal "awskms" {
  region = "us-east-1"
  kms_key_id = "alias/goldentooth/vault-seal"
}

telemetry {
  prometheus_retention_time = "60s"
  disable_hostname = true
}

==== cargyll
# Made by the overlay `vault`.

cluster_name = "goldentooth"
ui = true
# Memory of a Pi is never swapped (no node has swap), and locking it would need a capability.
disable_mlock = true

api_addr = "https://10.4.0.12:8200"
cluster_addr = "https://10.4.0.12:8201"

listener "tcp" {
  address = "10.4.0.12:8200"
  cluster_address = "10.4.0.12:8201"
  tls_cert_file = "/run/vault/tls/cert.pem"
  tls_key_file = "/run/vault/tls/key.pem"
  telemetry {
    unauthenticated_metrics_access = true
  }
}

storage "raft" {
  path = "/opt/vault/data/raft"
  # The name, not the life: a node that lost its data joins again as the one that it was.
  node_id = "cargyll"

  retry_join {
    leader_api_addr = "https://10.4.0.11:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }

  retry_join {
    leader_api_addr = "https://10.4.0.13:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }
}

# Unseals itself. Without `vault_seal_key` in cluster.toml somebody has to, at every start.
seal "awskms" {
  region = "us-east-1"
  kms_key_id = "alias/goldentooth/vault-seal"
}

telemetry {
  prometheus_retention_time = "60s"
  disable_hostname = true
}

==== dalt
# Made by the overlay `vault`.

cluster_name = "goldentooth"
ui = true
# Memory of a Pi is never swapped (no node has swap), and locking it would need a capability.
disable_mlock = true

api_addr = "https://10.4.0.13:8200"
cluster_addr = "https://10.4.0.13:8201"

listener "tcp" {
  address = "10.4.0.13:8200"
  cluster_address = "10.4.0.13:8201"
  tls_cert_file = "/run/vault/tls/cert.pem"
  tls_key_file = "/run/vault/tls/key.pem"
  telemetry {
    unauthenticated_metrics_access = true
  }
}

storage "raft" {
  path = "/opt/vault/data/raft"
  # The name, not the life: a node that lost its data joins again as the one that it was.
  node_id = "dalt"

  retry_join {
    leader_api_addr = "https://10.4.0.11:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }

  retry_join {
    leader_api_addr = "https://10.4.0.12:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }
}

# Unseals itself. Without `vault_seal_key` in cluster.toml somebody has to, at every start.
seal "awskms" {
  region = "us-east-1"
  kms_key_id = "alias/goldentooth/vault-seal"
}

telemetry {
  prometheus_retention_time = "60s"
  disable_hostname = true
}
