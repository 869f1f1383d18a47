"""`make chaos-network`: two gateways and all they speak to, each a host of its own on one machine, while the network fails."""
