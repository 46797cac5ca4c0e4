#!/usr/bin/env python3
"""Writes mx_blocks.csv beside this script: blocks of 32 values under the rule of OCP Microscaling Formats (MX) v1.0, section 6.3.

Oracle: ml_dtypes for the element formats and E8M0, NumPy for the rest.

    pip install ml_dtypes==0.6.0 numpy
    python3 generate.py

Each line: the numerics, the bits of 32 f32 values, the E8M0 code of the shared scale, the 32 element codes. The scale is
2^(floor(log2 amax) - emax), clamped to E8M0; elements round to nearest even and saturate.
"""

import pathlib

import ml_dtypes
import numpy as np

SEED = 20231
BLOCK = 32
ELEMENTS = {
    "mxfp8": ml_dtypes.float8_e4m3fn,
    "mxfp8-e5m2": ml_dtypes.float8_e5m2,
    "mxfp6": ml_dtypes.float6_e2m3fn,
    "mxfp6-e3m2": ml_dtypes.float6_e3m2fn,
    "mxfp4": ml_dtypes.float4_e2m1fn,
    "mxint8": None,
}


def encode(values, element):
    """Codes of finite values, saturating; the specification codes MXINT8 in steps of 1/64."""
    if element is None:
        return np.clip(np.rint(values * 64), -127, 127).astype(np.int8).view(np.uint8)
    limit = float(ml_dtypes.finfo(element).max)
    return np.clip(values, -limit, limit).astype(np.float32).astype(element).view(np.uint8)


def floor_log2(x):
    return int(np.frexp(np.float64(x))[1]) - 1


def quantize(block, element):
    limit = 127 / 64 if element is None else float(ml_dtypes.finfo(element).max)
    exponent = floor_log2(np.abs(block).max()) - floor_log2(limit)
    exponent = int(np.clip(exponent, -127, 127))
    code = np.float32(2.0**exponent).astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    return int(code), encode(block.astype(np.float64) / 2.0**exponent, element)


def blocks(rng):
    yield rng.standard_normal(BLOCK)
    yield rng.standard_t(2, BLOCK)
    yield rng.standard_normal(BLOCK) * 2.0 ** rng.integers(-20, 20, BLOCK)
    yield rng.standard_normal(BLOCK) * 1e-20
    yield rng.standard_normal(BLOCK) * 1e30
    yield np.where(np.arange(BLOCK) == 7, 1.9999, 0.0)
    yield np.where(np.arange(BLOCK) == 0, 3.4e38, 1.0)
    # Just below a power of two, where flooring the exponent makes the largest element saturate.
    yield np.full(BLOCK, 2.0) - rng.random(BLOCK) * 0.1
    # Every element halfway between two codes of the coarser formats.
    yield (rng.integers(0, 16, BLOCK) * 2 + 1) / 16.0


def main():
    rng = np.random.default_rng(SEED)
    lines = ["numerics,f32_bits,scale_code,codes"]
    for name, element in ELEMENTS.items():
        for block in blocks(rng):
            block = block.astype(np.float32)
            scale, codes = quantize(block, element)
            bits = " ".join(f"{bits:08x}" for bits in block.view(np.uint32))
            lines.append(f"{name},{bits},{scale:02x}," + " ".join(f"{code:02x}" for code in codes))
    (pathlib.Path(__file__).parent / "mx_blocks.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
