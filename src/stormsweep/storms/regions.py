"""Regions of the contiguous United States, to score by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Name, and west, east, south and north border in degrees; where boxes overlap, the first counts.
#: West: the Rocky Mountains (104 W) and beyond. Plains: Montana's and New Mexico's eastern borders
#: to the Missouri and to Arkansas, parted at 40 N (Nebraska and Kansas). Midwest: from there to
#: Ohio, north of Tennessee. Northeast: from Ohio's eastern border, north of Maryland's southern
#: tip. Southeast: the rest, the Gulf and both coasts of Florida with it.
BOXES: tuple[tuple[str, float, float, float, float], ...] = (
    ("West", -180.0, -104.0, -90.0, 90.0),
    ("Northern Plains", -104.0, -96.0, 40.0, 90.0),
    ("Southern Plains", -104.0, -94.0, -90.0, 40.0),
    ("Midwest", -96.0, -80.5, 37.0, 90.0),
    ("Northeast", -80.5, 180.0, 38.0, 90.0),
    ("Southeast", -94.0, 180.0, -90.0, 38.0),
)


def region(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Return the region of each place.

    Parameters
    ----------
    lon, lat : array_like, shape (n,)
        Degrees east (-180 to 180) and north.

    Returns
    -------
    ndarray of str, shape (n,)
        A name of `BOXES`; their union is everywhere.

    Examples
    --------
    >>> region([-97.5, -100.8, -90.2, -84.4, -73.8, -105.0], [35.5, 46.8, 38.6, 33.7, 42.7, 39.7])
    array(['Southern Plains', 'Northern Plains', 'Midwest', 'Southeast',
           'Northeast', 'West'], dtype='<U15')
    """
    x, y = np.asarray(lon), np.asarray(lat)
    inside = [
        (x >= west) & (x <= east) & (y >= south) & (y <= north)
        for _, west, east, south, north in BOXES
    ]
    return np.select(inside, [name for name, *_ in BOXES], default="Southeast")
