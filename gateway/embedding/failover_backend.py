"""The backend `group`: failover over several rows of the same model under one name. It delegates to the members' backends."""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta, Struct

from gateway.config import ModelRow
from gateway.config.typed import convert
from gateway.embedding.backend import (
    Backend,
    BackendContext,
    BoundBackend,
    Compiled,
    CompileProgress,
    ConnectionCheck,
    Preview,
)
from gateway.embedding.embedder import AnyEmbedder
from gateway.embedding.failover import BACKEND, FailoverEmbedder, Member
from gateway.errors import ConfigurationError


class MemberRow(Struct, frozen=True, kw_only=True):
    """The fields of a member that the group reads; the member's backend reads the rest."""

    backend: str
    name: Annotated[str, Meta(max_length=60, pattern=r"^[A-Za-z0-9._-]+$")] | None = None  # a header's and a label's value


class FailoverSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    members: Annotated[
        list[dict[str, Any]],
        Meta(
            min_length=2,
            description="Servers of the same model, in the order they are asked, each [[models.members]] with its backend, that"
            " backend's settings and, if you like, a name. Each embeds the same texts before it is used, and one whose vectors are"
            " others (cosine below 0.99) is refused. Every reply says in x-gateway-member whose it is.",
        ),
    ]


class FailoverBackend(Backend):
    """The backend of models that several servers have. Each method delegates to every member."""

    name = BACKEND
    settings = FailoverSettings
    has_cache = True  # each member has one: members' vectors are not mixed

    def build(self, settings: FailoverSettings, context: BackendContext) -> FailoverEmbedder:
        """Makes an embedder of all members. Raises ConfigurationError if a member's row is wrong."""
        models = {name: member.build() for name, member in _members_of(settings, context).items()}
        members = [Member(name, model.embedder, model.built or model.embedder) for name, model in models.items()]
        return FailoverEmbedder(context.name, members, context.metrics)

    def check(self, settings: FailoverSettings, context: BackendContext) -> None:
        """Checks each member. Raises ConfigurationError if their kinds, where they are known before loading, differ."""
        members = _members_of(settings, context)
        for member in members.values():
            member.check()
        kinds = {name: kind for name, member in members.items() if (kind := member.preview().kind) is not None}
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"'{name}' is of the kind {kind}" for name, kind in kinds.items())
            raise ConfigurationError(f"models[{context.name}].members: they have to be of one kind, and {said}")

    def connections(self, settings: FailoverSettings, context: BackendContext) -> Iterator[ConnectionCheck]:
        for member in _members_of(settings, context).values():
            yield from member.connections()

    def compile(self, settings: FailoverSettings, context: BackendContext, progress: CompileProgress) -> Iterator[Compiled]:
        for member in _members_of(settings, context).values():
            yield from member.compile(progress)

    def preview(self, settings: FailoverSettings, context: BackendContext) -> Preview:
        previews = {name: member.preview() for name, member in _members_of(settings, context).items()}
        kinds = {each.kind for each in previews.values()}
        state = "; ".join(f"{name}: {each.state}" for name, each in previews.items())
        return Preview(source=self.name, kind=kinds.pop() if len(kinds) == 1 else None, state=state)

    def is_local(self, settings: FailoverSettings, context: BackendContext) -> bool:
        """Whether any member is: it may be the one that serves."""
        return any(member.is_local() for member in _members_of(settings, context).values())

    def find_compiled(self, settings: FailoverSettings, context: BackendContext, fingerprint: str) -> AnyEmbedder | None:
        found = (member.find_compiled(fingerprint) for member in _members_of(settings, context).values())
        return next((embedder for embedder in found if embedder is not None), None)


def _members_of(settings: FailoverSettings, context: BackendContext) -> dict[str, BoundBackend]:
    """The members by name, in the order they are tried. Raises ConfigurationError if a member's row is wrong."""
    members: dict[str, BoundBackend] = {}
    for number, table in enumerate(settings.members, start=1):
        name, member = _member_of(number, table, context)
        if name in members:
            raise ConfigurationError(f"models[{context.name}].members: the name '{name}' is used twice")
        members[name] = member
    return members


def _member_of(number: int, table: dict[str, Any], context: BackendContext) -> tuple[str, BoundBackend]:
    where = f"models[{context.name}].members[{number - 1}]"
    own = {name: value for name, value in table.items() if name in {"backend", "name"}}
    row = convert(own, MemberRow, where=where)
    if row.backend == BACKEND or context.member is None:
        raise ConfigurationError(f"{where}.backend: a group cannot be a member of a group")
    name = row.name or f"{number}-{row.backend}"
    settings = {name: value for name, value in table.items() if name not in own}
    return name, context.member(ModelRow(name=f"{context.name}/{name}", backend=row.backend, settings=settings))
