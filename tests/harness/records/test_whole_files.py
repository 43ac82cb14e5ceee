"""A file is there whole or not at all."""

from pathlib import Path

import pytest

from lockstep_bench.harness.records.whole_files import write_whole, written_whole


@pytest.mark.parametrize("content", ["two lines\nas they are\r\n µ", b"\x00\xff"])
def test_what_is_written_is_what_is_read(tmp_path: Path, content: str | bytes) -> None:
    """Text is UTF-8 with its own line ends; nothing else is left in the folder."""
    write_whole(tmp_path / "file", "before")
    write_whole(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_breaks_off_leaves_the_file_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    """Half of it is nowhere."""
    write_whole(tmp_path / "file", "before")

    def break_off() -> None:
        with written_whole(tmp_path / "file") as path:
            path.write_text("half")
            raise error

    with pytest.raises(error):
        break_off()
    assert (tmp_path / "file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    """Not the one that would have been put in its place."""
    with pytest.raises(FileNotFoundError) as error:
        write_whole(tmp_path / "nowhere" / "file", "text")
    assert error.value.filename == str(tmp_path / "nowhere" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error_of_folder:
        write_whole(tmp_path / "folder", "text")
    assert error_of_folder.value.filename == str(tmp_path / "folder")
