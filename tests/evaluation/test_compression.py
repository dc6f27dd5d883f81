"""The yardstick is the size of the file that `xz -9` writes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llm.errors import DataError
from llm.evaluation import xz_bits_per_byte


@pytest.mark.skipif(shutil.which("xz") is None, reason="no xz to compare with")
def test_equals_the_command():
    data = Path(subprocess.__file__).read_bytes()
    written = subprocess.run(["xz", "-9", "--stdout"], input=data, capture_output=True, check=True).stdout
    assert xz_bits_per_byte(data) == 8 * len(written) / len(data)


def test_repetition_is_cheap_and_noise_is_not():
    assert xz_bits_per_byte(b"a" * 100_000) < 0.02
    assert xz_bits_per_byte(bytes(range(256))) > 8


def test_no_bytes_is_an_error():
    with pytest.raises(DataError):
        xz_bits_per_byte(b"")
