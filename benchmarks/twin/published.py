"""What is known of the real archive: figures that courses and papers printed, as numbers.

Sources: the notebooks of the AMS short course on machine learning of 2019 (modules 1 to 4, printed
outputs) and their later reworking in the AI2ES course; "train" is run dates before 2015 (modules 1
and 3; the channel statistics of module 4 are of 2010-14), "test" those from 2015 on.
"""

from __future__ import annotations

#: Patches: all, before 2015, from 2015 on, of the first file, of the first five files.
PATCHES = {"all": 121_137, "train": 76_377, "test": 44_760, "first": 1_472, "first five": 5_481}
RUNS = {"all": 100, "train": 64, "test": 36}

#: Share (per cent) of storms with more than 0.005 1/s over their mask.
EVENT_PERCENT = {"train": 4.552, "test": 5.266}
#: Vorticity maxima (1/s): 90th percentile over the mask and over the patch, training part.
MASK_P90, PATCH_P90 = 3.850e-3, 5.431e-3
#: Percentile of 0.008 1/s among the patch maxima of all years.
PATCH_8_PERCENTILE = 97.48
#: Standard deviation of the mask maximum (1/s), training part, from errors and skills.
MASK_SD = 1.52e-3

#: Mean and standard deviation over all cells of all patches.
CHANNELS = {
    "train": {
        "REFL_COM": (22.6855, 15.7617),
        "U10": (-0.2901, 4.6689),
        "V10": (0.8431, 5.0262),
        "T2": (290.3430, 7.6134),
    },
    "test": {
        "REFL_COM": (22.437183, 15.817961),
        "U10": (-0.619780, 4.428548),
        "V10": (0.313597, 5.116556),
    },
}

_STATISTICS = """
mean 46.8465/3.9841 0.4497/4.3476 0.5425/4.4619 289.4085/6.9316
max 54.0536/7.8916 3.7645/5.2611 3.8980/5.0662 290.6932/7.1243
min 41.6137/2.1420 -2.8554/4.6963 -2.8218/5.1586 288.3058/6.9931
std 3.3821/1.9589 1.7784/1.2983 1.8066/1.3372 0.6316/0.5788
percentile_10 42.8875/2.6283 -1.8138/4.4511 -1.7699/4.7968 288.6863/6.9346
percentile_25 44.2195/3.0782 -0.8385/4.3768 -0.7620/4.6154 288.9676/6.9148
percentile_50 46.4414/3.9843 0.4467/4.4199 0.5485/4.5412 289.3655/6.9216
percentile_75 49.1885/5.2718 1.7393/4.6106 1.8509/4.6136 289.8157/6.9700
percentile_90 51.4304/6.3696 2.7245/4.8599 2.8394/4.7665 290.1966/7.0336
"""


def _table() -> dict[str, tuple[float, float]]:
    found = {}
    for line in _STATISTICS.split("\n"):
        statistic, *pairs = line.split() or [""]
        for field, pair in zip(("REFL_COM", "U10", "V10", "T2"), pairs, strict=False):
            mean, spread = pair.split("/")
            found[f"{field}_{statistic}"] = (float(mean), float(spread))
    return found | {
        "area": (41.5472, 37.8608),
        "eccentricity": (0.7569, 0.2152),
        "major_axis_length": (10.3189, 7.1024),
        "minor_axis_length": (5.1180, 2.7162),
        "orientation": (-0.1314, 0.9073),
    }


#: Mean and standard deviation of the 41 statistics of the table, training part.
TABLE: dict[str, tuple[float, float]] = _table()

#: Quantiles of the table, 2016-17: by percentile, area (km2) and peak reflectivity (dBZ).
PERCENTILES = (5.1, 10.1, 25.3, 50.5, 74.7, 89.9, 94.9, 99.0)
QUANTILES = {
    "area": tuple(km2 / 9 for km2 in (45, 54, 110, 240, 590, 920, 960, 1300)),
    "REFL_COM_max": (43, 45, 47, 52, 60, 66, 68, 74),
    "REFL_COM_mean": (42, 42, 44, 46, 49, 52, 55, 60),
    "REFL_COM_std": (0.65, 0.97, 1.7, 3.1, 4.9, 6.2, 6.8, 8.0),
    "U10_std": (0.27, 0.41, 0.77, 1.5, 2.4, 3.5, 4.3, 6.2),
    "V10_std": (0.29, 0.42, 0.78, 1.5, 2.4, 3.6, 4.4, 6.4),
    "eccentricity": (0.36, 0.51, 0.69, 0.82, 0.91, 0.95, 0.97, 0.98),
}

#: ROC AUC and Brier skill score on the test part, label mask maximum > 0.005 1/s.
SKILL = {
    "dense": ("dense net, four means of the table", 0.885, 0.221),
    # Published for the label 3.85e-3 1/s, on 2015.
    "forest": ("random forest, 41 statistics of the table", 0.913, 0.328),
    "cnn": ("CNN, patches of reflectivity and wind", 0.956, 0.413),
    "dropout": ("the same, twice the filters, spatial dropout", 0.959, 0.439),
}
