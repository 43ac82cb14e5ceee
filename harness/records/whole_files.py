"""Files that appear whole or not at all, whatever ends the process that writes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to. At the end the file there replaces `path`; after an exception it is removed.

    Raises:
        OSError: the file cannot be written; it names `path`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one go; text as UTF-8, with its line ends as they are.

    Raises:
        OSError: as `written_whole`.
    """
    with written_whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
