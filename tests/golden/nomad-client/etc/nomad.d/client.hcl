==== erenford fenn gardener harlton inchfield jast
# Made by the overlay `nomad-client`.

client {
  enabled = true
  node_class = "default"
  # Debian's place for the plugins.
  cni_path = "/usr/lib/cni"

  server_join {
    retry_join = [
      "10.4.0.11",
      "10.4.0.12",
      "10.4.0.13",
    ]
    retry_interval = "15s"
  }
}
