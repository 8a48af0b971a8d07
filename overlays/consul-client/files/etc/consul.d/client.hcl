# Made by the overlay `consul-client`.

server = false
