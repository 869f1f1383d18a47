"""The backend `ray`: models that run on a Ray cluster."""

import sys
from collections.abc import Iterator
from functools import partial

from gateway.access.worker import in_thread
from gateway.cluster import connection
from gateway.cluster.embedder import RayEmbedder, refuse_without_ray
from gateway.cluster.settings import BACKEND, RaySettings
from gateway.embedding.backend import Backend, BackendContext, Compiled, CompileProgress, ConnectionCheck
from gateway.errors import ConfigurationError, OperatorError


class RayBackend(Backend):
    """The backend of models that run on a Ray cluster."""

    name = BACKEND
    settings = RaySettings

    def build(self, settings: RaySettings, context: BackendContext) -> RayEmbedder:
        """Makes the embedder. Raises ConfigurationError if this platform cannot serve such a model."""
        if sys.platform == "win32":
            raise ConfigurationError(f"models[{context.name}].backend: 'ray' needs Linux or macOS on the gateway's side")
        return RayEmbedder(settings, context)

    def check(self, settings: RaySettings, context: BackendContext) -> None:  # noqa: ARG002 - as of each Backend
        """Checks only that ray is installed: the model's files are on the nodes."""
        refuse_without_ray(context.name)

    def connections(self, settings: RaySettings, context: BackendContext) -> Iterator[ConnectionCheck]:
        what = f"models[{context.name}] on the cluster at {settings.address}"
        yield ConnectionCheck(what, partial(in_thread, partial(reach, settings.address)))

    def compile(self, settings: RaySettings, context: BackendContext, progress: CompileProgress) -> Iterator[Compiled]:  # noqa: ARG002
        yield Compiled(context.name, "nothing to compile: it is not served on this machine")


def reach(place: str) -> str:
    """Checks that something listens at `place`, HOST:PORT or "auto". Blocks. Raises OperatorError if nothing does."""
    try:
        found = connection.find_address(place)
    except ImportError:
        raise OperatorError("the package ray is not installed: pip install 'ray[serve]'") from None
    except (OSError, ValueError) as error:
        raise OperatorError(str(error)) from None
    if reason := connection.unreachable(found):
        raise OperatorError(reason)
    return ""
