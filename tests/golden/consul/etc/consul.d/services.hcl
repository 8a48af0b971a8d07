==== allyrion
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.10:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.10:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "nfs"
  port = 2049
  check {
    name = "port 2049 is open"
    tcp = "10.4.0.10:2049"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "kubernetes-api"
  port = 6443
  check {
    name = "port 6443 is open"
    tcp = "10.4.0.10:6443"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "envoy"
  port = 10000
  check {
    name = "port 10000 is open"
    tcp = "10.4.0.10:10000"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "prometheus"
  port = 9090
  check {
    name = "port 9090 is open"
    tcp = "10.4.0.10:9090"
    interval = "30s"
    timeout = "5s"
  }
}

==== bettley
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.11:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.11:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmctld"
  port = 6817
  check {
    name = "port 6817 is open"
    tcp = "10.4.0.11:6817"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.11:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== cargyll
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.12:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.12:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmctld"
  port = 6817
  check {
    name = "port 6817 is open"
    tcp = "10.4.0.12:6817"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.12:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== dalt
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.13:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.13:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmctld"
  port = 6817
  check {
    name = "port 6817 is open"
    tcp = "10.4.0.13:6817"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.13:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== erenford
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.14:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.14:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.14:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== fenn
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.15:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.15:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.15:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== gardener
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.16:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.16:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.16:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== harlton
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.17:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.17:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.17:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== inchfield
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.18:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.18:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.18:6818"
    interval = "30s"
    timeout = "5s"
  }
}

==== jast
# Made by the overlay `consul`: what this node's other overlays serve, each with a look at its port. Nomad, and Vault where
# Consul is its storage, tell of themselves.

services {
  name = "ssh"
  port = 22
  check {
    name = "port 22 is open"
    tcp = "10.4.0.19:22"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "node-exporter"
  port = 9100
  check {
    name = "port 9100 is open"
    tcp = "10.4.0.19:9100"
    interval = "30s"
    timeout = "5s"
  }
}

services {
  name = "slurmd"
  port = 6818
  check {
    name = "port 6818 is open"
    tcp = "10.4.0.19:6818"
    interval = "30s"
    timeout = "5s"
  }
}
