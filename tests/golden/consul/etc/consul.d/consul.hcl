==== allyrion
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "allyrion"
data_dir = "/opt/consul"

bind_addr = "10.4.0.10"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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

==== bettley
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "bettley"
data_dir = "/opt/consul"

bind_addr = "10.4.0.11"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.12",
  "10.4.0.13",
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

==== cargyll
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "cargyll"
data_dir = "/opt/consul"

bind_addr = "10.4.0.12"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.13",
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

==== dalt
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "dalt"
data_dir = "/opt/consul"

bind_addr = "10.4.0.13"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
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

==== erenford
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "erenford"
data_dir = "/opt/consul"

bind_addr = "10.4.0.14"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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

==== fenn
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "fenn"
data_dir = "/opt/consul"

bind_addr = "10.4.0.15"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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

==== gardener
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "gardener"
data_dir = "/opt/consul"

bind_addr = "10.4.0.16"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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

==== harlton
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "harlton"
data_dir = "/opt/consul"

bind_addr = "10.4.0.17"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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

==== inchfield
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "inchfield"
data_dir = "/opt/consul"

bind_addr = "10.4.0.18"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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

==== jast
# Made by the overlay `consul`. With it go server.hcl or client.hcl here, and what consul-prepare makes of the node's
# secrets in /run/consul/config.

datacenter = "dc1"
domain = "consul"
node_name = "jast"
data_dir = "/opt/consul"

bind_addr = "10.4.0.19"
# Not itself: whoever has joined himself has joined, and stops trying.
retry_join = [
  "10.4.0.11",
  "10.4.0.12",
  "10.4.0.13",
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
