"""`[batches]`: jobs of many requests, by /v1/batches."""

from typing import Annotated

from msgspec import Meta

from gateway.config.setting import MB, MINUTES, YEAR, Secret, Settings, count, positive

HOUR = 60 * MINUTES
DAY = 24 * HOUR


class BatchSettings(Settings, frozen=True):
    max_requests: Annotated[int, count(description="A batch whose file has more requests fails, as at OpenAI.")] = 50_000
    max_inputs: Annotated[int, count(description="A batch whose requests have more texts, all together, fails, as at OpenAI.")] = (
        50_000
    )
    max_file_bytes: Annotated[int, count(description="A batch of a larger file is refused with 400.")] = 200 * MB
    several_models: Annotated[
        bool, Meta(description="Whether the requests of one file may name different models. At OpenAI they may not.")
    ] = False
    max_running: Annotated[
        int, count(description="Batches that this gateway works on at once; of different keys first. Others wait for their turn.")
    ] = 4
    max_unfinished_per_key: Annotated[
        int, count(description="Batches of one key that wait or run; one more is refused with 429.")
    ] = 1000
    window_seconds: Annotated[
        float,
        positive(
            description="A batch that is not finished in this time expires: what is done is kept, the rest is listed as expired."
            " Clients ask for 24h, the only window that the API has."
        ),
    ] = float(DAY)
    token_discount: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="The share of a batch's tokens that its key's limit and budget are not charged. OpenAI's is 0.5.",
        ),
    ] = 0.0
    poll_seconds: Annotated[
        float,
        Meta(ge=0.05, le=HOUR, description="How often a gateway looks for batches that were made, or left behind, by another one."),
    ] = 1.0
    lease_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=HOUR,
            description="A gateway that works on a batch says so three times in this time. After it, another one goes on.",
        ),
    ] = 15.0
    orphan_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=YEAR,
            description="A batch whose model gives other vectors now waits so long for a gateway that has the old ones.",
        ),
    ] = float(MINUTES)
    retention_days: Annotated[int, Meta(ge=1, le=36_500, description="Finished batches are forgotten after this long.")] = 90
    webhook_url: Annotated[
        Annotated[str, Meta(pattern="^https?://")] | None,
        Meta(description="Where each finished batch is reported, as OpenAI's webhooks do it. Nowhere without it."),
    ] = None
    webhook_secret: Annotated[
        Secret | None, Meta(description="What the reports are signed with: whsec_ and base64, as OpenAI's SDKs take it.")
    ] = None

    def __post_init__(self) -> None:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("webhook_url and webhook_secret belong together: a report is always signed")
