"""What is wrong with a file that somebody wrote is said in one line, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.yaml_file import read_yaml
from schemas.errors import ConfigurationError


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{a: [", "is no YAML"),
        (b"a: 1\nb: [x]\n", r"numbers.yaml: b: Input should be a valid integer"),
        (b"- 1\n", "the file: Input should be a valid dictionary"),
        (b"\xff\xfe\x00", "is no text"),
        (b"a: !!python/object/apply:os.system ['true']\n", "is no YAML"),
        (b"[" * 5000, "is no YAML"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    """Broken, of another form, no text, or one that would run something."""
    file = tmp_path / "numbers.yaml"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=why):
        read_yaml(file, dict[str, int])


def test_a_file_that_is_one_is_its_value(tmp_path: Path) -> None:
    """And one that is not there is named."""
    file = tmp_path / "numbers.yaml"
    with pytest.raises(ConfigurationError, match=r"numbers\.yaml cannot be read"):
        read_yaml(file, dict[str, int])
    file.write_text("a: 1\n")

    assert read_yaml(file, dict[str, int]) == {"a": 1}
