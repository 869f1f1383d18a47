"""Metrics of files, their rows and their storage."""

from gateway.metrics.declaration import MetricDeclaration


class FileMetrics:
    """Files of /v1/files, those of batches included."""

    def __init__(self, declare: MetricDeclaration) -> None:
        self.stored_files = declare.gauge("gateway_files", "Files that are kept, of all keys and all gateways on the database.")
        self.stored_bytes = declare.gauge("gateway_files_bytes", "What these files have together.")
        bytes_moved = declare.count("gateway_file_bytes_total", "Bytes of files, written whole or read.", ["direction"])
        self.written_bytes, self.read_bytes = bytes_moved.labels("written"), bytes_moved.labels("read")
        self.deleted = declare.count("gateway_files_deleted_total", "Files that were deleted, by why they were.", ["reason"])
        self.failures = declare.count(
            "gateway_file_storage_failures_total",
            "Failures of the table of files, of their contents' storage, or a full one.",
            ["kind"],
        )
        for kind in ("table", "content", "full"):  # starts at 0, so that a rate includes the first one
            self.failures.labels(kind)
