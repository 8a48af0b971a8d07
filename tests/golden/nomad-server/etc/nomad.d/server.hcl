==== bettley
# Made by the overlay `nomad-server`.

server {
  enabled = true
  bootstrap_expect = 3
  rejoin_after_leave = true
  # The owner's: a cluster that was switched off for an hour keeps its allocations.
  heartbeat_grace = "1h"

  server_join {
    retry_join = [
      "10.4.0.12",
      "10.4.0.13",
    ]
    retry_interval = "15s"
  }
}

==== cargyll
# Made by the overlay `nomad-server`.

server {
  enabled = true
  bootstrap_expect = 3
  rejoin_after_leave = true
  # The owner's: a cluster that was switched off for an hour keeps its allocations.
  heartbeat_grace = "1h"

  server_join {
    retry_join = [
      "10.4.0.11",
      "10.4.0.13",
    ]
    retry_interval = "15s"
  }
}

==== dalt
# Made by the overlay `nomad-server`.

server {
  enabled = true
  bootstrap_expect = 3
  rejoin_after_leave = true
  # The owner's: a cluster that was switched off for an hour keeps its allocations.
  heartbeat_grace = "1h"

  server_join {
    retry_join = [
      "10.4.0.11",
      "10.4.0.12",
    ]
    retry_interval = "15s"
  }
}
