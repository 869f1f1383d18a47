"""Beyond one machine. `plan` tells how many replicas and nodes a load needs, `simulation` checks it; neither knows Ray.

queueing    the formulas, each with its source
plan        load, replica, nodes -> how many, and how long texts will take
simulation  the same cluster, event by event: bursts, batches, lost nodes, slow autoscaling
"""
