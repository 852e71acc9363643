"""HDR colours (PQ or HLG) become those of an ordinary screen: the curves of the standards, baked into one table.

A table of colours maps 8-bit RGB to 8-bit RGB, so a picture costs one look-up, whatever the mathematics.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

PQ, HLG = 16, 18
"""Transfer characteristics of HDR video (ITU-T H.273): SMPTE ST 2084 and ARIB STD-B67."""

_WHITE_NITS = 203.0  # diffuse white of HDR (ITU-R BT.2408): white on an ordinary screen
_PEAK_NITS = 1000.0  # the brightest light kept apart: what most HDR is mastered to
_SCREEN_GAMMA = 2.4  # ITU-R BT.1886
_TABLE_SIZE = 65
_BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)  # ITU-R BT.2087
_BT2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])

Floats = NDArray[np.float64]


def tone_map(pixels: NDArray[np.uint8], transfer: int, is_wide_gamut: bool) -> NDArray[np.uint8]:
    """Turn R′G′B′ [H, W, 3] coded by `transfer` (PQ or HLG) into BT.709 R′G′B′ [H, W, 3].

    is_wide_gamut: the primaries are those of BT.2020 rather than of BT.709. Light
    up to about 95 cd/m² is kept as it is; 203 cd/m² come out at nine tenths of white, 1000 and more as white.
    """
    return np.asarray(Image.fromarray(pixels).filter(_table(transfer, is_wide_gamut)))


@cache
def _table(transfer: int, is_wide_gamut: bool) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _TABLE_SIZE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # Pillow wants red to change fastest
    codes = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    light = pq_to_nits(codes) if transfer == PQ else _hlg_to_nits(codes)
    light = _roll_off(light) / _WHITE_NITS
    if is_wide_gamut:
        light = light @ _BT2020_TO_BT709.T
    shown = light.clip(0, 1) ** (1 / _SCREEN_GAMMA)
    return ImageFilter.Color3DLUT(_TABLE_SIZE, shown.ravel())


def pq_to_nits(code: Floats) -> Floats:
    """Light (cd/m²) of a PQ code from 0 to 1 (SMPTE ST 2084, equation 4.1)."""
    power = code ** (32 / 2523)
    return 10000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def nits_to_pq(nits: Floats) -> Floats:
    """The PQ code from 0 to 1 of light in cd/m² (SMPTE ST 2084, equation 5.1)."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def _hlg_to_nits(code: Floats) -> Floats:
    """Light (cd/m²) of HLG codes [N, 3] on a screen of 1000 cd/m² (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    luminance = scene @ _BT2020_LUMINANCE
    return np.asarray(_PEAK_NITS * scene * luminance[:, None] ** 0.2)


def _roll_off(nits: Floats) -> Floats:
    """Bring 0 to 1000 cd/m² down to 0 to 203: below the knee as it is, above it a spline (ITU-R BT.2390, 5.4.1)."""
    peak = nits_to_pq(np.array(_PEAK_NITS))
    target = nits_to_pq(np.array(_WHITE_NITS)) / peak
    knee = 1.5 * target - 0.5
    level = np.minimum(nits_to_pq(nits) / peak, 1)
    t = (level - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target
    return pq_to_nits(np.where(level < knee, level, spline) * peak)
