"""Calls between processes: from a front to this machine's engine process, and from a gateway to the replicas of a Ray cluster.

message   what is asked and answered
framing   frames of a header and a payload, over any stream
packing   packs windows of token ids into one array, and unpacks them
channel   a duplex connection of two processes: numbered calls, answers, cancellation
failure   a GatewayError as a message, and back

Knows no HTTP, no Ray, and not which process asks.
"""
