"""The road of a request in a front: the same steps, of which the engine process does some."""

from gateway.api.door import RequestContext
from gateway.api.inference import InferenceHandler
from gateway.embedding.embedder import Inputs, Prepared
from gateway.embedding.model import Model
from gateway.processes.engine_embedder import EngineWork
from gateway.processes.remote_lease import RemoteLease


class FrontHandler(InferenceHandler):
    """Tokens are charged by the call that embeds them: what was prepared gets the request's lease."""

    async def prepare(self, model: Model, inputs: Inputs, context: RequestContext) -> Prepared[object]:
        prepared = await super().prepare(model, inputs, context)
        work, lease = prepared.work, context.lease
        if isinstance(work, EngineWork) and isinstance(lease, RemoteLease):
            work.lease = lease
            if work.number:
                lease.kept.add(work.number)
        return prepared
