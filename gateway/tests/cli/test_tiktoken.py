"""`gateway tiktoken FOLDER`, read by tiktoken itself without a network."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gateway.cli.tiktoken import tiktoken
from gateway.errors import OperatorError

READ = "import tiktoken; print(tiktoken.get_encoding('cl100k_base').encode('hello world'))"


def test_tiktoken_itself_reads_what_was_written_without_a_network(tmp_path):
    told = CliRunner().invoke(tiktoken, [str(tmp_path / "new" / "cache")], catch_exceptions=False)
    assert told.output.endswith(f"TIKTOKEN_CACHE_DIR={tmp_path / 'new' / 'cache'} where the clients run.\n")
    nobody = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    environ = {**os.environ, **nobody, "TIKTOKEN_CACHE_DIR": str(tmp_path / "new" / "cache")}
    ended = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, env=environ, timeout=60, check=True)
    assert ended.stdout == "[15339, 1917]\n"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="file/cache cannot be written: Not a directory"):
        CliRunner().invoke(tiktoken, [str(tmp_path / "file" / "cache")], catch_exceptions=False)
