"""A temporary S3 server: moto's, in a process of its own, on a free port. It forgets everything when it ends."""

import importlib.util
import socket
import subprocess
import sys
import time

from gateway.testing.programs import NotInstalled, free_port

BOUND_SECONDS = 60
ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION = "AKIDEXAMPLE0000TEST", "secret-of-the-tests-and-of-nothing-else", "us-east-1"


class S3Server:
    """`bucket` makes buckets, `keys` and `uploads` look into one from outside, with boto3."""

    def __init__(self) -> None:
        if importlib.util.find_spec("moto") is None:
            raise NotInstalled("moto, which stands for S3, is not installed")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + BOUND_SECONDS
        while not self.answers():
            assert self.process.poll() is None, "moto's server ended at once"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        import boto3  # slow, and for these tests alone

        self.client = boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID, aws_secret_access_key=SECRET_ACCESS_KEY,
        )  # fmt: skip

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def make_bucket(self, name: str) -> str:
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def uploads(self, bucket: str) -> list[str]:
        """Multipart uploads that are neither completed nor aborted."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
