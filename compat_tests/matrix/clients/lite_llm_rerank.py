"""LiteLLM's rerank, in an environment of its own: a list of calls on stdin, their replies on stdout."""

import json
import os
import sys

with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
    os.dup2(2, 1)  # whatever else prints goes to stderr
    import litellm

    replies = [litellm.rerank(**call).model_dump() for call in json.load(sys.stdin)]
    print(json.dumps(replies), file=out)
