# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "{{ vars.datacenter }}"
name = "{{ node.name }}"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "{{ node.ip }}"
  rpc = "{{ node.ip }}"
  serf = "{{ node.ip }}"
}

# A node that reboots comes back; one that left would be moved out of the quorum.
leave_on_interrupt = false
leave_on_terminate = false
disable_update_check = true

consul {
  address = "127.0.0.1:8500"
}

telemetry {
  collection_interval = "60s"
  disable_hostname = true
  prometheus_metrics = true
  publish_allocation_metrics = true
  publish_node_metrics = true
}
