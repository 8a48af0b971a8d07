==== bettley
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "bettley"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.11"
  rpc = "10.4.0.11"
  serf = "10.4.0.11"
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

==== cargyll
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "cargyll"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.12"
  rpc = "10.4.0.12"
  serf = "10.4.0.12"
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

==== dalt
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "dalt"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.13"
  rpc = "10.4.0.13"
  serf = "10.4.0.13"
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

==== erenford
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "erenford"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.14"
  rpc = "10.4.0.14"
  serf = "10.4.0.14"
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

==== fenn
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "fenn"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.15"
  rpc = "10.4.0.15"
  serf = "10.4.0.15"
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

==== gardener
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "gardener"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.16"
  rpc = "10.4.0.16"
  serf = "10.4.0.16"
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

==== harlton
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "harlton"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.17"
  rpc = "10.4.0.17"
  serf = "10.4.0.17"
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

==== inchfield
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "inchfield"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.18"
  rpc = "10.4.0.18"
  serf = "10.4.0.18"
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

==== jast
# Made by the overlay `nomad`. With it go server.hcl and client.hcl here, and what nomad-prepare makes of the node's
# secrets in /run/nomad/config.

datacenter = "dc1"
name = "jast"
data_dir = "/opt/nomad/data"

# RPC and gossip on every address; HTTP as nomad-prepare finds it safe.
bind_addr = "0.0.0.0"
advertise {
  http = "10.4.0.19"
  rpc = "10.4.0.19"
  serf = "10.4.0.19"
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
