# Made by the overlay `vault`.

cluster_name = "{{ cluster.name }}"
ui = true
# Memory of a Pi is never swapped (no node has swap), and locking it would need a capability.
disable_mlock = true

api_addr = "https://{{ node.ip }}:8200"
cluster_addr = "https://{{ node.ip }}:8201"

listener "tcp" {
  address = "{{ node.ip }}:8200"
  cluster_address = "{{ node.ip }}:8201"
  tls_cert_file = "/run/vault/tls/cert.pem"
  tls_key_file = "/run/vault/tls/key.pem"
  telemetry {
    unauthenticated_metrics_access = true
  }
}
{% if vars.vault_storage == "consul" %}
# The local agent, which knows who leads. Its token is CONSUL_HTTP_TOKEN in vault.env.
storage "consul" {
  address = "127.0.0.1:8500"
  path = "vault/"
}
{% else %}
storage "raft" {
  path = "/opt/vault/data/raft"
  # The name, not the life: a node that lost its data joins again as the one that it was.
  node_id = "{{ node.name }}"
{%- for n in nodes_with("vault") if n.name != node.name %}

  retry_join {
    leader_api_addr = "https://{{ n.ip }}:8200"
    leader_ca_cert_file = "/run/vault/tls/ca.pem"
  }
{%- endfor %}
}
{% endif %}
{%- if vars.vault_seal_key is defined %}
# Unseals itself. Without `vault_seal_key` in cluster.toml somebody has to, at every start.
seal "awskms" {
  region = "{{ vars.aws_region }}"
  kms_key_id = "{{ vars.vault_seal_key }}"
}
{% endif %}
telemetry {
  prometheus_retention_time = "60s"
  disable_hostname = true
}
