"""A group: only what was proven equal serves, the first that can, and never in silence."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from gateway.config import EngineSettings, LimitSettings, ModelRow
from gateway.embedding.backend import BackendContext, BoundBackend
from gateway.embedding.cache import VectorCache
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.embedder import Health, Inputs, Vectors
from gateway.embedding.failover import REST_SECONDS, FailoverEmbedder, Member
from gateway.embedding.failover_backend import FailoverBackend, FailoverSettings
from gateway.embedding.quantization import ranges_of
from gateway.embedding.registry import complete
from gateway.errors import ConfigurationError, DeadlinePassed, GatewayError, InputTooLong, OperatorError, Overloaded, Unembeddable
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeBackend, FakeClock, FakeEmbedder, FakeSettings

OURS = "f" * 24 + ".openvino-bfloat16"
BOUND_SECONDS = 10


class Turned(FakeEmbedder):
    """Its vectors are those of others, turned away from them so far that the cosine to them is `cosine`."""

    def __init__(self, *, cosine=1.0, **settings):
        super().__init__(**settings)
        self.cosine = cosine

    async def embed(self, prepared):
        vectors = await super().embed(prepared)
        rows, aside = vectors.rows, np.roll(vectors.rows, 1, axis=1)
        aside -= (aside * rows).sum(axis=1, keepdims=True) * rows
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        turned = self.cosine * rows + np.sqrt(1 - self.cosine**2) * aside
        return Vectors(turned.astype(np.float32), vectors.stages)


class Broken(GatewayError):
    status = 502
    code = "upstream_error"


def group_of(*embedders, clock=time.monotonic):
    metrics = Metrics()
    names = ("first", "second", "third")
    members = [Member(name, embedder, embedder) for name, embedder in zip(names, embedders, strict=False)]
    return FailoverEmbedder("m", members, metrics.of_model("m"), clock), metrics


async def started(*embedders, **more):
    group, metrics = group_of(*embedders, **more)
    await group.start()
    for embedder in embedders:
        embedder.prepared.clear()
    return group, metrics


async def asked(group, *texts, seconds=BOUND_SECONDS):
    inputs = Inputs(list(texts or ("hello",)), is_array=True, caller="a", deadline=time.monotonic() + seconds)
    return await group.embed(await group.prepare(inputs))


def answered(metrics):
    samples = metrics.models.group_requests.collect()[0].samples
    return {(each.labels["member"], each.labels["outcome"]): each.value for each in samples}


async def test_a_group_has_no_ranges_of_a_member_which_may_be_away_next_time():
    first = FakeEmbedder()
    first.about = {"ranges": ranges_of([-1] * 8, [1] * 8)}
    group, _ = await started(first, FakeEmbedder())
    assert group.describe().ranges is None
    await group.close()


@pytest.mark.parametrize("field", ["takes_token_ids", "takes_instruction"])
async def test_a_group_takes_what_each_of_its_members_takes(field):
    able, unable = FakeEmbedder(), FakeEmbedder()
    able.about[field] = True
    for embedders, expected in (((able, able), True), ((able, unable), False), ((unable, able), False)):
        group, _ = await started(*embedders)
        assert getattr(group.describe(), field) is expected
        await group.close()


@pytest.mark.parametrize(
    ("field", "more"), [("takes_token_ids", {"token_ids": [[5]]}), ("takes_instruction", {"instruction": "i"})]
)
async def test_a_member_met_only_now_is_passed_over_if_it_would_misread_the_request(field, more):
    first, second, clock = FakeEmbedder(), FakeEmbedder(fails_with="it is away"), FakeClock()
    first.about[field] = True
    group, _ = await started(first, second, clock=clock)
    assert getattr(group.describe(), field)
    second.fails_with, first.raises = None, Overloaded()
    clock.advance(3600)
    inputs = Inputs([""], is_array=True, caller="c", deadline=time.monotonic() + BOUND_SECONDS)
    with pytest.raises(Overloaded):
        await group.embed(await group.prepare(replace(inputs, **more)))
    assert (await group.embed(await group.prepare(inputs))).member == "second"
    await group.close()


async def test_the_first_member_serves_and_a_reply_says_whose_it_is():
    group, metrics = await started(FakeEmbedder(fingerprint=OURS), FakeEmbedder())
    vectors = await asked(group)
    assert (vectors.member, vectors.fingerprint) == ("first", OURS)
    assert group.describe().backend == "group"
    assert group.describe().fingerprint == OURS
    assert answered(metrics) == {("first", "ok"): 1}


@pytest.mark.parametrize("error", [Overloaded(), DeadlinePassed(), Broken("its certificate is wrong")])
async def test_a_member_that_fails_hands_its_request_to_the_next(error):
    first, second = FakeEmbedder(), FakeEmbedder(fingerprint=OURS)
    group, metrics = await started(first, second)
    first.raises = error
    vectors = await asked(group, "one", "two")
    assert (vectors.member, vectors.fingerprint, len(vectors.rows)) == ("second", OURS, 2)
    assert answered(metrics) == {("first", error.outcome): 1, ("second", "ok"): 1}


@pytest.mark.parametrize("error", [InputTooLong("input[0]", 8), Unembeddable("input[0]")])
async def test_what_the_next_member_could_do_no_better_is_not_sent_to_it(error):
    first, second = FakeEmbedder(), FakeEmbedder()
    group, _ = await started(first, second)
    first.raises = error
    with pytest.raises(type(error)):
        await asked(group)
    assert second.prepared == []


async def test_where_all_fail_the_first_ones_failure_is_told():
    first, second = FakeEmbedder(), FakeEmbedder()
    group, _ = await started(first, second)
    first.raises, second.raises = Broken("first"), Overloaded()
    with pytest.raises(Broken, match="first"):
        await asked(group)


async def test_a_member_that_hangs_leaves_the_next_one_half_of_the_time():
    first, second = FakeEmbedder(), FakeEmbedder()
    group, metrics = await started(first, second)
    first.gate = asyncio.Event()
    vectors = await asked(group, seconds=0.4)
    assert vectors.member == "second"
    assert first.num_cancelled == 1
    assert answered(metrics) == {("first", "timeout"): 1, ("second", "ok"): 1}


async def test_a_member_that_failed_rests_and_is_then_asked_first_again():
    clock = FakeClock()
    first, second = FakeEmbedder(), FakeEmbedder()
    group, _ = await started(first, second, clock=clock)
    first.raises = Overloaded()
    await asked(group)
    first.raises = None
    first.prepared.clear()
    assert (await asked(group, "resting")).member == "second"
    assert first.prepared == []
    clock.advance(REST_SECONDS + 1)
    assert (await asked(group, "rested")).member == "first"


async def test_a_client_who_leaves_is_not_sent_on():
    first, second = FakeEmbedder(), FakeEmbedder()
    group, _ = await started(first, second)
    first.gate = asyncio.Event()
    task = asyncio.create_task(asked(group))
    await first.is_waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert second.prepared == []


UNEQUAL = {
    "other vectors": (FakeEmbedder(), Turned(cosine=0.98), r"members first and second do not give the same .*0\.98\d\d, not 0\.99"),
    "fewer dimensions": (FakeEmbedder(), FakeEmbedder(dimensions=7), r"first and second differ: 8 and 7 dimensions"),
    "other weights, though the vectors are alike": (
        FakeEmbedder(fingerprint=OURS),
        FakeEmbedder(fingerprint="b" * 8 + "f" * 16 + ".openvino-bfloat16"),
        r"first and second differ in weights or configuration: f{24}\.openvino-bfloat16 and b{8}f{16}\.openvino-bfloat16",
    ),
}


@pytest.mark.parametrize(("first", "second", "words"), UNEQUAL.values(), ids=UNEQUAL)
async def test_members_that_are_not_the_same_are_refused_with_the_figures(first, second, words):
    group, _ = group_of(first, second)
    with pytest.raises(OperatorError, match=words) as caught:
        await group.start()
    assert caught.value.category == "members_differ"
    assert group.health().state == "failed"


class Prompted(FakeEmbedder):
    """Puts its prompt, where it has one of that name, before each text."""

    def __init__(self, *names, texts=()):
        super().__init__(fingerprint="c" * 24 + ".openai-unknown")
        self.texts = dict(zip(names, texts or names, strict=True))
        self.about = {"prompts": names}

    async def embed(self, prepared):
        prompt = self.texts.get(prepared.inputs.input_type, "")
        inputs = replace(prepared.inputs, texts=[prompt + text for text in prepared.inputs.texts])
        return await super().embed(replace(prepared, inputs=inputs))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (Prompted(), "do not give the same vectors"),  # it would embed queries without the prompt
        (Prompted("query", texts=("other: ",)), "do not give the same vectors"),
        (Prompted("passage"), "differ in prompts: .*'passage'"),
    ],
)
async def test_a_member_that_puts_other_prompts_before_texts_is_refused(second, words):
    group, _ = group_of(Prompted("query"), second)
    with pytest.raises(OperatorError, match=words) as caught:
        await group.start()
    assert caught.value.category == "members_differ"


async def test_members_with_the_same_prompts_serve():
    group, _ = await started(Prompted("query", "passage"), Prompted("query", "passage"))
    assert [member.is_checked for member in group.members] == [True, True]


EQUAL = {
    "another precision": FakeEmbedder(fingerprint="f" * 24 + ".torch-float32"),
    "vectors a little off": Turned(cosine=0.995, fingerprint=OURS),
    "a server that tells nothing of its weights": FakeEmbedder(fingerprint="c" * 24 + ".tei-unknown"),
    "a server that tells something else": FakeEmbedder(fingerprint="v1"),
}


@pytest.mark.parametrize("second", EQUAL.values(), ids=EQUAL)
async def test_members_that_give_the_same_vectors_may_differ_in_what_does_not_matter(second):
    group, _ = await started(FakeEmbedder(fingerprint=OURS), second)
    assert [member.is_checked for member in group.members] == [True, True]


async def test_a_vector_that_is_no_number_is_not_the_same():
    group, _ = group_of(FakeEmbedder(), Turned(cosine=float("nan")))
    with pytest.raises(OperatorError, match=r"-1\.0000, not 0\.99"):
        await group.start()


async def test_a_member_that_was_away_is_checked_before_its_first_use():
    first, second = FakeEmbedder(), Turned(fails_with="http://b cannot be reached")
    group, _ = await started(first, second)
    assert (await asked(group)).member == "first"
    second.fails_with = None
    first.raises = Overloaded()
    assert (await asked(group, "now")).member == "second"
    assert second.prepared[0].texts != ["now"]  # the probes came first
    await group.close()


async def test_a_member_that_comes_back_with_other_vectors_is_never_used(capfd):
    first, second = FakeEmbedder(), Turned(cosine=0.5, fails_with="away")
    group, metrics = await started(first, second)
    second.fails_with = None
    first.raises = Broken("gone")
    for _ in range(2):
        with pytest.raises(Broken):
            await asked(group)
    said = "".join(capfd.readouterr())
    assert "group_member_refused" in said
    assert "0.50" in said
    assert ("second", "ok") not in answered(metrics)
    first.raises = None
    assert (await asked(group)).member == "first"
    await group.close()


async def test_a_member_that_waits_for_its_server_does_not_hold_up_the_group():
    """As a remote embedder does: its start goes on, and its health says why."""

    class Away(FakeEmbedder):
        is_back = None

        async def start(self):
            self.is_back = asyncio.Event()
            self.state = Health("loading", "http://b cannot be reached", "upstream_unavailable")
            await self.is_back.wait()
            await super().start()

    first, second = Away(), FakeEmbedder()
    group, _ = group_of(first, second)
    await asyncio.wait_for(group.start(), BOUND_SECONDS)
    assert (await asked(group)).member == "second"
    first.is_back.set()
    await asyncio.wait_for(group.members[0].task, BOUND_SECONDS)
    assert await group.retry_member(group.members[0])
    assert (await asked(group, "again")).member == "first"
    await group.close()
    assert first.is_closed


async def test_where_no_member_can_be_reached_it_says_each_ones_reason_and_may_be_tried_again():
    first, second = FakeEmbedder(fails_with="a is unavailable"), FakeEmbedder(fails_with="b is unavailable")
    group, _ = group_of(first, second)
    with pytest.raises(OperatorError, match="no member can be reached: first: a is unavailable; second: b is unavailable"):
        await group.start()
    second.fails_with = None
    await group.start()
    assert (await asked(group)).member == "second"
    await group.close()


async def test_each_member_has_its_own_vectors_in_the_cache():
    cache, metrics = VectorCache(1_000_000), Metrics()
    embedders = FakeEmbedder(fingerprint=OURS), Turned(cosine=0.995, fingerprint="f" * 24 + ".torch-float32")
    around = [CachedEmbedder(each, cache, max_request_tokens=100, metrics=metrics.of_model("m")) for each in embedders]
    members = [Member(name, cached, built) for name, cached, built in zip(("first", "second"), around, embedders, strict=True)]
    group = FailoverEmbedder("m", members, metrics.of_model("m"))
    await group.start()
    own = await asked(group, "text")
    embedders[0].raises = Overloaded()
    assert (await asked(group, "text")).num_hits == 1  # made before the first one failed: no server is needed
    other = await asked(group, "other")
    again = await asked(group, "other", "text")
    assert (other.member, again.member, again.num_hits) == ("second", "second", 1)
    assert not np.array_equal(own.rows[0], again.rows[1])
    assert float(own.rows[0] @ again.rows[1]) == pytest.approx(0.995, abs=1e-3)


async def test_it_has_failed_when_every_member_has():
    first, second = FakeEmbedder(), FakeEmbedder()
    group, _ = await started(first, second)
    first.state = Health("failed")
    assert group.health().state == "ready"
    second.state = Health("failed")
    assert group.health().state == "failed"


def context(name="m", **more):
    return BackendContext(name, LimitSettings(), EngineSettings(), Metrics().of_model("m"), None, **more)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([{"backend": "fake"}, {"name": "b"}], r"models\[m\].members\[1\]: .*backend"),
        ([{"backend": "fake", "name": "a"}, {"backend": "fake", "name": "a"}], "the name 'a' is used twice"),
        ([{"backend": "fake", "name": "a b"}, {"backend": "fake"}], r"models\[m\].members\[0\].name"),
        ([{"backend": "group", "members": []}, {"backend": "fake"}], "a group cannot be a member of a group"),
    ],
)
def test_members_that_are_written_wrongly_are_refused_by_name(tables, words):
    with pytest.raises(ConfigurationError, match=words):
        FailoverBackend().build(FailoverSettings(members=tables), context(member=bound))


def bound(row):
    return BoundBackend(
        row, complete(FakeBackend(**{row.name: FakeEmbedder()}), "fake"), FakeSettings(), context(row.name), lambda made: made
    )


def test_a_members_row_is_its_backends_own():
    rows = []

    def member(row):
        rows.append(row)
        return bound(row)

    tables = [{"backend": "tei", "url": "http://a"}, {"backend": "openai", "name": "paid", "url": "http://b"}]
    group = FailoverBackend().build(FailoverSettings(members=tables), context(member=member))
    assert [each.name for each in group.members] == ["1-tei", "paid"]
    assert rows[1] == ModelRow(name="m/paid", backend="openai", settings={"url": "http://b"})
