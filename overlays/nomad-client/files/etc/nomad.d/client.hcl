# Made by the overlay `nomad-client`.

client {
  enabled = true
  node_class = "default"
  # Debian's place for the plugins.
  cni_path = "/usr/lib/cni"

  server_join {
    retry_join = [
{%- for n in nodes_with("nomad-server") %}
      "{{ n.ip }}",
{%- endfor %}
    ]
    retry_interval = "15s"
  }
}
