"""How many replicas and nodes a load needs: a plan by queueing theory, and a simulation that it is held against."""
