"""Models on a Ray cluster: the engine runs in replicas of a Ray Serve application, and the gateway calls them.

embedder        the Embedder: tokenises here, embeds in a replica, retries lost calls once
backend         the backend `ray`: its embedder, and the answers to commands
settings        the settings of a row of the backend `ray`
client_process  the gateway's end of the socket to its Ray client: calls, answers, restarts
ray_client      the child process that is connected to the cluster; the only part that imports ray while the gateway serves
connection      joins a cluster, or fails fast with a reason
replica         the engine inside Ray Serve
policy          the autoscaling policy: how many replicas a load needs
application     a row as an application of Ray Serve; KubeRay's RayService imports it
deployment      deploy, status, delete

A handle of Ray Serve needs a process that is connected to Ray, with a Ray node on its own host, and Ray ends a process that has
lost its cluster for a minute. So the gateway itself is never connected. Its Ray client is; it may end, and is started again.

Knows no HTTP and no keys. Modules import ray inside functions, so that a gateway without the extra `ray` starts.
"""
