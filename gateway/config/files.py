"""`[files]`: what clients upload and batches write, by /v1/files."""

from typing import Annotated

from msgspec import Meta

from gateway.config.setting import DAY, GB, MB, MINUTES, Settings, count, positive


class FileSettings(Settings, frozen=True):
    enabled: Annotated[
        bool | None,
        Meta(
            description="Whether /v1/files and what is built on it are served. Default: where every request needs a key. With"
            ' auth.mode = "none" everybody could fill the disk, up to max_bytes_per_key: say true to allow it.'
        ),
    ] = None
    folder: Annotated[
        str | None,
        Meta(
            description="Where the contents of files are kept; by default data_dir/files. Several gateways with one database_url"
            " need one folder that all of them see. They are not encrypted here: that is left to the disk."
        ),
    ] = None
    max_file_bytes: Annotated[int, count(description="A larger upload is refused with 413.")] = 200 * MB
    max_bytes_per_key: Annotated[
        int,
        count(
            description="What the files of one key may have together, the outputs of its batches included; an upload beyond it is"
            ' refused with 400. With auth.mode = "none" all files together.'
        ),
    ] = 10 * GB
    min_free_bytes: Annotated[
        int,
        Meta(
            ge=0, description="Nothing is written to `folder` while its disk has less free: keys and usage may be on the same disk."
        ),
    ] = GB
    max_uploads: Annotated[int, count(description="Uploads under way at once; one more is answered 503.")] = 16
    upload_timeout_seconds: Annotated[
        float, positive(description="An upload that takes longer as a whole is refused with 408.")
    ] = 60.0 * MINUTES
    upload_idle_seconds: Annotated[float, positive(description="An upload that sends nothing for so long is refused with 408.")] = (
        30.0
    )
    batch_expiry_seconds: Annotated[
        int,
        Meta(
            ge=MINUTES * 60,
            le=365 * DAY,
            description="After which time a file of a batch is deleted if its upload says nothing (`expires_after`). Files of other"
            " purposes stay until they are deleted.",
        ),
    ] = 30 * DAY
    sweep_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=DAY,
            description="How often what has expired is deleted, and what an upload that broke off or a revoked key left behind."
            " No request sees a file after its time, deleted or not.",
        ),
    ] = 60.0
