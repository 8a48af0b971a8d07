==== bettley cargyll dalt
# Made by the overlay `consul-server`.

server = true
# None begins before so many are there, and one that comes back empty finds the others' log and takes that.
bootstrap_expect = 3

ui_config {
  enabled = true
}

connect {
  enabled = true
}
