# Made by the overlay `nomad-server`.

server {
  enabled = true
  bootstrap_expect = {{ nodes_with("nomad-server") | length }}
  rejoin_after_leave = true
  # The owner's: a cluster that was switched off for an hour keeps its allocations.
  heartbeat_grace = "1h"

  server_join {
    retry_join = [
{%- for n in nodes_with("nomad-server") if n.name != node.name %}
      "{{ n.ip }}",
{%- endfor %}
    ]
    retry_interval = "15s"
  }
}
