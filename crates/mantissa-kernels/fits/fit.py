"""Prints the coefficients in src/math.rs: minimax fits by Lawson's iteratively reweighted least squares (Lawson 1961), against
Python's exact-to-the-last-place exp and erfc. Needs numpy; takes seconds.

    python3 crates/mantissa-kernels/fits/fit.py
"""

import math

import numpy as np


def nodes(low, high, count=3000):
    """Chebyshev nodes, where errors of polynomials are even."""
    angles = (np.arange(count) + 0.5) / count * np.pi
    return (low + high) / 2 + (high - low) / 2 * np.cos(angles)


def minimax(columns, target, weight):
    """Coefficients c that make the largest of |weight * (columns c - target)| small, and that error."""
    columns, target = columns * weight[:, None], target * weight
    share = np.ones(len(target))
    for _ in range(300):
        root = np.sqrt(share)
        fit = np.linalg.lstsq(columns * root[:, None], target * root, rcond=None)[0]
        error = np.abs(columns @ fit - target)
        share = share * error
        share /= share.sum()
    return fit, error.max()


def show(name, coefficients, error):
    digits = ", ".join(f"{np.float32(c)!r}".removeprefix("np.float32(").removesuffix(")") for c in coefficients)
    print(f"{name} (error {error:.1e}), lowest power first:\n    {digits}")


def exponential():
    """2 exp(r) = 2 + 2 r + r^2 p(r) for |r| <= ln(2) / 2, relative."""
    r = nodes(-math.log(2) / 2, math.log(2) / 2)
    exp = np.exp(r)
    powers = np.stack([r ** (2 + k) for k in range(5)], 1)
    fit, error = minimax(powers, 2 * exp - 2 - 2 * r, 1 / (2 * exp))
    show("2 exp(r) = 2 + 2 r + r^2 p(r)", fit, error)


def normal_tail():
    """Phi(-a) exp(a^2/2) = p(a) / q(a) with q(0) = 1, for a up to where Phi leaves the normal numbers: minimax of the equation that
    is linear in the coefficients, weighted by the q of the fit before (Sanathanan and Koerner 1963). The error is relative, and may
    grow like that of rounding a^2/2 before it is exponentiated."""
    a = (1 / nodes(1 / (1 + 0.4 * 13.3), 1) - 1) / 0.4
    scaled = np.array([math.erfc(x / math.sqrt(2)) / 2 * math.exp(x * x / 2) for x in a])
    weight = 1 / (scaled * (1 + a * a / 2))
    columns = np.stack([a**k for k in range(4)] + [-scaled * a**k for k in range(1, 5)], 1)
    largest = np.abs(columns).max(0)
    share, denominator, best = np.ones(len(a)), np.ones(len(a)), (math.inf, None, None)
    for _ in range(400):
        root = np.sqrt(share) * weight / denominator
        fit = np.linalg.lstsq(columns / largest * root[:, None], scaled * root, rcond=None)[0] / largest
        p, q = fit[:4], np.append(1, fit[4:])
        denominator = np.polyval(q[::-1], a)
        error = np.abs(weight * (np.polyval(p[::-1], a) / denominator - scaled))
        best = min(best, (error.max(), p, q), key=lambda candidate: candidate[0])
        share = share * error
        share /= share.sum()
    return best


if __name__ == "__main__":
    exponential()
    error, p, q = normal_tail()
    show("Phi(-a) exp(a^2/2) = p(a) / q(a): p", p, error)
    show("q", q, error)
