"""The page's images of the dataset, of misclassified digits and of hidden units, as data URLs."""

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

import matplotlib as mpl
import numpy as np
import PIL
from matplotlib import colormaps
from matplotlib.image import imsave
from matplotlib.style import context
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lockstep_bench.harness.data import figures
from lockstep_bench.harness.data.cache import Dataset
from lockstep_bench.harness.records.whole_files import write_whole
from lockstep_bench.harness.tables.learnt import Learnt, tiled

OF_DATASET: Final[Mapping[str, str]] = {
    "first-images": "The first four training images with their labels",
    "grid": "The first nine training images with their labels",
    "components": "All training images as points on their first two principal components, coloured by label",
}
"""The names of figures of the dataset, and what each shows."""


class Picture(NamedTuple):
    """An image in the page itself: what it is, and as a data URL."""

    alt: str
    url: str


def of_dataset(dataset: Dataset) -> list[Picture]:
    """Figures of the dataset, from its cache if an earlier report has left them there.

    A report is made more often than the principal components of sixty thousand images change.
    """
    with context("default"), threadpool_limits(1):  # the other CPUs have charts to draw
        return [Picture(alt, _url(_kept(dataset, name), "webp")) for name, alt in OF_DATASET.items()]


def _kept(dataset: Dataset, name: str) -> bytes:
    """A figure of the dataset as WebP; kept in its cache, where those of other versions are removed."""
    path = dataset.folder / f"{name}-{_drawn_by()}.webp"
    if path.is_file():
        return path.read_bytes()
    file = BytesIO()  # WebP takes a quarter of the bytes that PNG does for sixty thousand points
    figures.FIGURES[name](dataset).savefig(file, dpi=120, format="webp", pil_kwargs={"quality": 80})
    with suppress(OSError):  # a full or read-only cache: it is drawn again next time
        for old in dataset.folder.glob(f"{name}-*.webp"):
            old.unlink()
        write_whole(path, file.getvalue())
    return file.getvalue()


def _drawn_by() -> str:
    """A short hash of all that the bytes of a figure come from, beside the dataset."""
    versions = f"{mpl.__version__} {np.__version__} {PIL.__version__}"
    sources = [Path(source).read_bytes() for source in (__file__, figures.__file__)]
    return sha256(b"".join([*sources, versions.encode()])).hexdigest()[:12]


def of_digit(image: NDArray[np.float32]) -> str:
    """An image in black on white, a dot per pixel."""
    file = BytesIO()
    imsave(file, image, cmap="gray_r", vmin=0, vmax=1, format="png")
    return _url(file.getvalue())


def of_units(learnt: Learnt) -> str:
    """All hidden units' images in one."""
    file, limit = BytesIO(), learnt.units_limit
    colours = colormaps["RdBu_r"].with_extremes(bad="0.5")
    imsave(file, tiled(list(learnt.units)), cmap=colours, vmin=-limit, vmax=limit, format="png")
    return _url(file.getvalue())


def _url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + b64encode(content).decode()
