"""`[files]`: what clients upload and batches write, by /v1/files."""

from typing import Annotated

from msgspec import Meta

from gateway.config.setting import DAY, GB, MB, MINUTES, Secret, Settings, count, positive


class FileSettings(Settings, frozen=True):
    enabled: Annotated[
        bool | None,
        Meta(
            description="Whether /v1/files and /v1/batches are served. Default: where every request needs a key, unless several"
            ' gateways may share a database_url and neither folder nor s3_bucket is set. With auth.mode = "none" everybody could'
            " fill the disk, up to max_bytes_per_key: say true to allow it."
        ),
    ] = None
    folder: Annotated[
        str | None,
        Meta(
            description="Where the contents of files are kept; by default data_dir/files. Several gateways with one database_url"
            " need one folder that all of them see, or s3_bucket. They are not encrypted here: that is left to the disk."
        ),
    ] = None
    s3_bucket: Annotated[
        str | None,
        Meta(
            description="A bucket of Amazon S3, or of a server with its protocol, that keeps the contents instead of `folder`."
            " Needs the extra `s3`. Let the bucket itself encrypt, and abort multipart uploads that nobody completed.",
        ),
    ] = None
    s3_prefix: Annotated[str, Meta(description="The folder in the bucket.")] = ""
    s3_endpoint: Annotated[str | None, Meta(description="The server's URL. Default: Amazon's, for s3_region.")] = None
    s3_region: Annotated[str | None, Meta(description="The bucket's region.")] = None
    s3_access_key_id: Annotated[
        Secret | None,
        Meta(
            description="{ env = … } or { file = … }. Without the two: the role of the machine or the pod, or AWS_… variables, as"
            " Amazon's own tools find it."
        ),
    ] = None
    s3_secret_access_key: Annotated[Secret | None, Meta(description="The secret of s3_access_key_id.")] = None
    s3_session_token: Annotated[Secret | None, Meta(description="Where the two are temporary.")] = None
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

    def __post_init__(self) -> None:
        if self.folder is not None and self.s3_bucket is not None:
            raise ValueError("folder and s3_bucket exclude each other")
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key belong together")
        if self.s3_bucket == "" or not (self.s3_endpoint or "https://").startswith(("https://", "http://")):
            raise ValueError("s3_bucket is a name, s3_endpoint begins with https:// or http://")
        if self.s3_bucket is None and any((self.s3_prefix, self.s3_endpoint, self.s3_region, self.s3_access_key_id)):
            raise ValueError("settings of S3 need s3_bucket")
