"""Models on a Ray cluster: this machine's engine as replicas of a Ray Serve application, and the gateway's road to them.

clustered    the Embedder: plan here, embed there, retry once what was lost
settings     what a row of the backend `ray` may hold
line         the gateway's end of the line to its courier: calls, answers, a courier that died
courier      a child process that holds the cluster's side of a row; the only part of the gateway that imports ray while it serves
address      joining a cluster, or saying soon why not
message      what the two say to each other, and to a replica
parcel       windows of token ids as one array, there and back
replica      the engine inside Ray Serve
policy       how many replicas a load needs
application  a row as an application of Ray Serve; what KubeRay's RayService imports
deployment   deploy, status, delete
plan         load, replica, nodes -> how many, and how long texts will take; knows no Ray, nor do the next two
queueing     its formulas, each with its source
simulation   the same cluster, event by event: bursts, batches, lost nodes, slow autoscaling

A handle of Ray Serve needs a process that is connected to Ray, with a Ray node on its own host, and Ray ends a process that has
lost its cluster for a minute. So the gateway itself is never connected: its courier is, and may be ended and started again.

Knows no HTTP and no keys. Ray is imported where it is used, so that a gateway without the extra `ray` starts.
"""
