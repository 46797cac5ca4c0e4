"use strict";
// Numbers in few characters, and elements in few lines.

const element = (id) => document.getElementById(id);

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const known = (x) => x !== null && x !== undefined;

function short(x, digits = 3) {
  if (!known(x) || Number.isNaN(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e5 || size < 1e-3 ? x.toExponential(digits - 1).replace(/\.?0*e\+?/, "e") : String(+x.toPrecision(digits));
}

const percent = (x) => !known(x) ? "–" : x === 0 ? "0 %" : (x < 1e-4 ? (100 * x).toExponential(1) : String(+(100 * x).toPrecision(3))) + " %";

function bytes(x) {
  if (!known(x)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = Math.min(units.length - 1, x < 1 ? 0 : Math.floor(Math.log2(x) / 10));
  return +(x / 2 ** (10 * unit)).toPrecision(3) + " " + units[unit];
}

// Degrees of freedom as far as a fit can tell them.
const nuText = (nu) => nu >= 999 ? "ν > 1000" : nu <= 0.5 ? "ν < 0.5" : "ν " + short(nu, 2);

const milliseconds = (x) => known(x) ? +(1000 * x).toPrecision(3) + " ms" : "–";

const powerOfTwo = (x) => Number.isInteger(Math.log2(x)) && x >= 2 ** 17 ? "2" + superscript(Math.log2(x)) : short(x, 6);
const superscript = (n) => String(n).replace(/[-\d]/g, (c) => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[+c]);
const powerOfTen = (x) => "10" + superscript(Math.round(Math.log10(x)));

const passNames = { forward: "forward", grad_lhs: "grad_lhs", grad_rhs: "grad_rhs" };
const passProducts = { forward: "Y = L R", grad_lhs: "dL = G Rᵀ", grad_rhs: "dR = Lᵀ G" };
const roleNames = { lhs: "lhs, the left factor", rhs: "rhs, the right factor", grad: "grad, the result's gradient" };

// The end of a long dotted name, which tells more than its beginning.
const ending = (name, length) => name.length <= length ? name : "…" + name.slice(name.length - length + 1);
