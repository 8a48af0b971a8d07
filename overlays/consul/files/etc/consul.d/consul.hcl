# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "{{ vars.datacenter }}"
domain = "{{ vars.consul_domain }}"
node_name = "{{ node.name }}"
data_dir = "/opt/consul"

bind_addr = "{{ node.ip }}"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
{%- for n in nodes_with("consul-server") if n.name != node.name %}
  "{{ n.ip }}",
{%- endfor %}
]

# A node that reboots has failed for a minute; it has not left. One that left is kept out under its old id until the
# others have forgotten it (hashicorp/consul#7396), and a server that leaves makes the quorum smaller.
leave_on_terminate = false
skip_leave_on_interrupt = true
rejoin_after_leave = true

# The key is the one that came at boot, not one that a former life kept.
disable_keyring_file = true
disable_update_check = true

ports {
  grpc = 8502
}

telemetry {
  prometheus_retention_time = "60s"
  disable_hostname = true
}
