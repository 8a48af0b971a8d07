# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.
{%- for role, service, port in [
    ["openssh", "ssh", 22],
    ["node-exporter", "node-exporter", 9100],
    ["nfs-server", "nfs", 2049],
    ["haproxy", "kubernetes-api", 6443],
    ["envoy", "envoy", 10000],
    ["prometheus", "prometheus", 9090],
    ["slurm-controller", "slurmctld", 6817],
    ["slurm-node", "slurmd", 6818],
] if role in node.roles %}

services {
  name = "{{ service }}"
  port = {{ port }}
  check {
    name = "port {{ port }} is open"
    tcp = "{{ node.ip }}:{{ port }}"
    interval = "30s"
    timeout = "5s"
  }
}
{%- endfor %}
