"""Models on a Ray cluster: this machine's engine as replicas of a Ray Serve application, and the gateway's road to them.

embedder        the Embedder: tokenise here, embed there, retry once what was lost
backend         the backend `ray`: what commands ask of a row that is not loaded
settings        what a row of the backend `ray` may hold
client_process  the gateway's end of the socket to its Ray client: calls, answers, a client that died
ray_client      a child process that holds the cluster's side of a row; the only part that imports ray while the gateway serves
connection      joining a cluster, or saying soon why not
message         what the two say to each other, and to a replica
packing         windows of token ids as one array, there and back
replica         the engine inside Ray Serve
policy          how many replicas a load needs
application     a row as an application of Ray Serve; what KubeRay's RayService imports
deployment      deploy, status, delete

A handle of Ray Serve needs a process that is connected to Ray, with a Ray node on its own host, and Ray ends a process that has
lost its cluster for a minute. So the gateway itself is never connected: its Ray client is, and may be ended and started again.

Knows no HTTP and no keys. Ray is imported where it is used, so that a gateway without the extra `ray` starts.
"""
