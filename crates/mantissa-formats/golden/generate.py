#!/usr/bin/env python3
"""Writes the golden tables beside this script.

Oracles: ml_dtypes and gfloat, which must agree wherever both know a format and a rounding; NumPy for the integers.

    pip install ml_dtypes==0.6.0 gfloat==0.5.2 numpy
    python3 generate.py

decode.csv           format, code, bits of the f32 it stands for; every code of every named format of at most 8 bits
encode_<format>.csv  bits of an f32, a random word, and the codes it becomes: nearest with overflow to the special value, nearest
                     with saturation, and toward-zero, nearest-away and stochastic (reading the random word) with overflow to the
                     special value. NaN codes are for comparison by class, not by bits.
"""

import pathlib

import ml_dtypes
import numpy as np
from gfloat import Domain, FormatInfo, RoundMode, decode_float, encode_ndarray, round_ndarray

HERE = pathlib.Path(__file__).parent
SEED = 20240802

IEEE, NAN, FNUZ, FINITE = "ieee", "nan", "fnuz", "finite"


def float_format(exponent_bits, mantissa_bits, bias, specials):
    high_nans = {IEEE: 2**mantissa_bits - 1, NAN: 1, FNUZ: 0, FINITE: 0}[specials]
    return FormatInfo(
        name=f"e{exponent_bits}m{mantissa_bits}-{specials}",
        k=1 + exponent_bits + mantissa_bits,
        precision=1 + mantissa_bits,
        bias=bias,
        is_signed=True,
        domain=Domain.Extended if specials == IEEE else Domain.Finite,
        has_nz=specials != FNUZ,
        num_high_nans=high_nans,
        has_subnormals=True,
        is_twos_complement=False,
    )


# name: (gfloat's description, ml_dtypes' type)
FLOATS = {
    "tf32": (float_format(8, 10, 127, IEEE), None),
    "bf16": (float_format(8, 7, 127, IEEE), ml_dtypes.bfloat16),
    "fp16": (float_format(5, 10, 15, IEEE), np.float16),
    "e5m2": (float_format(5, 2, 15, IEEE), ml_dtypes.float8_e5m2),
    "e4m3": (float_format(4, 3, 7, NAN), ml_dtypes.float8_e4m3fn),
    "e4m3-ieee": (float_format(4, 3, 7, IEEE), ml_dtypes.float8_e4m3),
    "e3m4": (float_format(3, 4, 3, IEEE), ml_dtypes.float8_e3m4),
    "e4m3fnuz": (float_format(4, 3, 8, FNUZ), ml_dtypes.float8_e4m3fnuz),
    "e5m2fnuz": (float_format(5, 2, 16, FNUZ), ml_dtypes.float8_e5m2fnuz),
    "e4m3b11fnuz": (float_format(4, 3, 11, FNUZ), ml_dtypes.float8_e4m3b11fnuz),
    "e2m3": (float_format(2, 3, 1, FINITE), ml_dtypes.float6_e2m3fn),
    "e3m2": (float_format(3, 2, 3, FINITE), ml_dtypes.float6_e3m2fn),
    "e2m1": (float_format(2, 1, 1, FINITE), ml_dtypes.float4_e2m1fn),
    # Formats nobody named: wide, narrow, without mantissa, with the exponent of f32.
    "e6m9": (float_format(6, 9, 31, IEEE), None),
    "e2m2": (float_format(2, 2, 1, IEEE), None),
    "e5m0": (float_format(5, 0, 15, NAN), None),
    "e8m3": (float_format(8, 3, 127, IEEE), None),
    "e7m20": (float_format(7, 20, 63, IEEE), None),
}
INTS = {"int8": 8, "int4": 4}


def f32(bits):
    return np.asarray(bits, np.uint32).view(np.float32)


def bits_of(values):
    return np.asarray(values, np.float32).view(np.uint32)


def positive_grid(max_code, decode, rng):
    """Positive finite values in order: all of a narrow format; of a wide one stretches at both ends and at random."""
    if max_code < 512:
        codes = np.arange(max_code + 1)
    else:
        starts = np.concatenate([[0, max_code - 3], rng.integers(0, max_code - 3, 50)])
        codes = np.unique((starts[:, None] + np.arange(4)).ravel())
    return np.array([decode(int(code)) for code in codes], np.float64)


def inputs(grid, rng):
    """The grid, its midpoints and one ulp around each; the overflow edge; f32's own edges; random values."""
    top = 2 * grid[-1] - grid[-2]
    points = np.concatenate([grid, (grid[1:] + grid[:-1]) / 2, [top, (top + grid[-1]) / 2]])
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    around = bits_of(points[np.isfinite(points)]).astype(np.int64)[:, None] + np.array([-1, 0, 1])
    edges = [0, 1, 2, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF]
    anywhere = rng.integers(0, 0x7F800000, 60)
    within = bits_of(np.exp2(rng.uniform(np.log2(grid[grid > 0][0]) - 3, np.log2(grid[-1]) + 1, 200)).clip(0, 3e38))
    positive = np.unique(np.concatenate([around.ravel(), edges, anywhere, within]).clip(0, 0x7FFFFFFF)).astype(np.uint32)
    negative = positive[(rng.random(positive.size) < 0.15) | np.isin(positive, edges)] | np.uint32(1 << 31)
    return np.concatenate([positive, negative])


def gfloat_codes(info, x, rounding, saturate, random=None):
    """Codes of x. A format without NaN takes ml_dtypes' zero of the opposite sign, and saturates."""
    x = x.astype(np.float64)
    if info.num_nans == 0:
        saturate = True
        x = np.where(np.isnan(x), np.where(np.signbit(x), 0.0, -0.0), x)
    extra = {} if random is None else {"srbits": random.astype(np.int64), "srnumbits": 32}
    with np.errstate(invalid="ignore"):
        return encode_ndarray(info, round_ndarray(info, x, rounding, saturate, **extra))


def float_columns(info, dtype, x, random):
    nearest = gfloat_codes(info, x, RoundMode.TiesToEven, False)
    if dtype is not None:
        with np.errstate(all="ignore"):
            theirs = x.astype(dtype).view(np.uint16 if info.k == 16 else np.uint8)
        nan = np.array([np.isnan(decode_float(info, int(code)).fval) for code in nearest])
        same = (theirs == nearest) | (nan & np.isnan(x.astype(dtype).astype(np.float32)))
        assert same.all(), (info.name, x[~same][:5], theirs[~same][:5], nearest[~same][:5])
    return [
        nearest,
        gfloat_codes(info, x, RoundMode.TiesToEven, True),
        gfloat_codes(info, x, RoundMode.TowardZero, False),
        gfloat_codes(info, x, RoundMode.TiesToAway, False),
        gfloat_codes(info, x, RoundMode.StochasticFastest, False, random),
    ]


def int_columns(bits, x, random):
    largest = 2 ** (bits - 1) - 1
    x = np.where(np.isnan(x), 0.0, x.astype(np.float64)).clip(-largest, largest)
    magnitude, sign = np.abs(x), np.sign(x)
    nearest = np.rint(x)
    rounded = [
        nearest,
        nearest,
        np.trunc(x),
        sign * np.floor(magnitude + 0.5),
        sign * np.floor(magnitude + random / 2.0**32),
    ]
    return [values.clip(-largest, largest).astype(np.int64) & (2**bits - 1) for values in rounded]


def power_of_two_columns(x):
    """E8M0 has one oracle, ml_dtypes, and that knows nearest rounding to the special value only."""
    return [x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)]


def write_encode(name, bits, random, columns):
    names = ["nearest", "nearest_saturate", "toward_zero", "nearest_away", "stochastic"][: len(columns)]
    with open(HERE / f"encode_{name}.csv", "w") as out:
        out.write(",".join(["f32_bits", "random", *names]) + "\n")
        for row in zip(bits, random, *columns):
            out.write(",".join(f"{int(cell):x}" for cell in row) + "\n")


def main():
    rng = np.random.default_rng(SEED)
    decode_rows = []

    def emit(name, width, max_code, decode, columns_of):
        bits = inputs(positive_grid(max_code, decode, rng), rng)
        random = rng.integers(0, 2**32, bits.size)
        with np.errstate(all="ignore"):
            write_encode(name, bits, random, columns_of(f32(bits), random))
        if width <= 8:
            decode_rows.extend((name, code, int(bits_of(decode(code)))) for code in range(2**width))

    for name, (info, dtype) in FLOATS.items():
        emit(
            name,
            info.k,
            info.code_of_max,
            lambda code, info=info: decode_float(info, code).fval,
            lambda x, random, info=info, dtype=dtype: float_columns(info, dtype, x, random),
        )
    for name, width in INTS.items():
        emit(
            name,
            width,
            2 ** (width - 1) - 1,
            lambda code, width=width: float(code - 2**width if code >> (width - 1) else code),
            lambda x, random, width=width: int_columns(width, x, random),
        )
    e8m0 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    emit("e8m0", 8, 254, lambda code: float(e8m0[code]), lambda x, _: power_of_two_columns(x))

    with open(HERE / "decode.csv", "w") as out:
        out.write("format,code,f32_bits\n")
        for name, code, bits in decode_rows:
            out.write(f"{name},{code:x},{bits:x}\n")


if __name__ == "__main__":
    main()
