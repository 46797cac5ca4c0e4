// What formats do to values: relative error by magnitude, and backward error by the weight of the tails.

const formatColours = { fp16: 0, bf16: 5, e4m3: 1, e5m2: 2, int8: 3, e2m1: 4 };
const formatColour = (format) => groupColour(formatColours[format] ?? 6);
const formatDash = (format) => groupDash(formatColours[format] ?? 6);

const formatLines = (points, strokeWidth) => d3.groups(points, (one) => one.format).map(([format, some]) => Plot.line(some, { x: "x", y: "y", stroke: formatColour(format), strokeDasharray: formatDash(format), strokeWidth, clip: true }));

function formatLegend(host, formats) {
  host.replaceChildren(...formats.map((format) => node("span", {}, lineSwatch(formatColours[format] ?? 6), format)));
}

part(() => {
  const curves = report.formats.relative_errors;
  choice("magnitudes", "magnitudes", [["scaled", "relative to the largest value"], ["absolute", "as they are, without a scale"]]);
  formatLegend(element("relative-legend"), curves.map((curve) => curve.format));
  const absolute = chosen.magnitudes === "absolute";
  const points = curves.flatMap((curve) => curve.magnitudes.map((at, i) => ({ format: curve.format, x: at + (absolute ? curve.max : 0), y: Math.max(curve.errors[i], 2 ** -13) }))).filter((one) => !absolute || one.x <= 20 && one.x >= -40);
  for (const one of points) one.text = `${one.format} at 2${superscript(one.x.toFixed(1).replace("-", "-").split(".")[0])}\nlargest relative error ${percent(one.y)}`;
  figure("relative-chart", (width) => makePlot({
    width, height: 300, marginLeft: 60, marginRight: 14,
    x: { label: absolute ? "log₂ |x|" : "log₂ |x| / largest value", ticks: 8 },
    y: { type: "log", base: 2, grid: true, label: "largest relative error", domain: [2 ** -12, 1.3], ticks: 7, tickFormat: (y) => y >= 1 ? "1" : "2" + superscript(Math.round(Math.log2(y))) },
    marks: [
      ...formatLines(points, 1.8),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", ...tipStyle })),
    ],
  }), (plot) => points.map((one) => ({ x: plot.scale("x").apply(one.x), y: plot.scale("y").apply(one.y), text: one.text })), () => ({
    headings: ["log₂ |x|", ...curves.map((curve) => curve.format)],
    rows: d3.groups(points, (one) => Math.round(one.x)).sort((a, b) => a[0] - b[0]).map(([at, some]) => [String(at), ...curves.map((curve) => d3.max(some.filter((one) => one.format === curve.format), (one) => one.y))]),
  }));
});

const NORMAL = 120;

part(() => {
  const all = report.formats.by_nu;
  const granularities = [...new Set(all.map((curve) => curve.numerics.split("/")[1]))];
  choice("granularity", "granularity", granularities.map((name) => [name, name]));
  const curves = all.filter((curve) => curve.numerics.split("/")[1] === chosen.granularity);
  const formatOf = (curve) => curve.numerics.split("/")[0];
  formatLegend(element("nu-legend"), curves.map(formatOf));
  const points = curves.flatMap((curve) => curve.medians.map(([nu, y]) => ({ format: formatOf(curve), nu, x: nu ?? NORMAL, y, text: `${curve.numerics}\n${nu === null ? "normal" : "ν " + nu}\nmedian backward error ${short(y)}` })));
  // This run's tensors, where their tails lie; the chosen site's are named.
  const tensors = theTensors().filter((tensor) => known(tensor.values?.nu));
  const ticks = tensors.map((tensor) => ({ x: Math.max(1, Math.min(NORMAL, tensor.values.nu)), mine: tensor.site === chosen.site, role: tensor.role, text: `${tensor.site}\n${tensor.role}, ${nuText(tensor.values.nu)}` }));
  const low = d3.min(points, (one) => one.y) * 0.6;
  const high = d3.max(all.flatMap((curve) => curve.medians), ([, y]) => y) * 1.3;
  figure("nu-chart", (width) => makePlot({
    width, height: 320, marginLeft: 60, marginRight: 20, marginBottom: 40,
    x: { type: "log", axis: null, domain: [1, NORMAL] },
    y: { type: "log", axis: null, domain: [low, high] },
    marks: [
      ...axisY(logTicks(low, high), short, "median backward error"),
      Plot.axisX([1, 2, 3, 5, 8, 15, 30, NORMAL], { text: (x) => x === NORMAL ? "normal" : String(x), label: "ν, from heavy tails to a normal" }),
      Plot.tickX(ticks.filter((tick) => !tick.mine), { x: "x", y: null, stroke: "var(--quiet)", strokeOpacity: 0.45, insetTop: 252 }),
      Plot.tickX(ticks.filter((tick) => tick.mine), { x: "x", stroke: (tick) => roleColours[tick.role], strokeWidth: 2.5, strokeDasharray: "5 3" }),
      ...ticks.filter((tick) => tick.mine).map((tick, i) => Plot.text([tick], { x: "x", text: "role", frameAnchor: "top", dx: 5, dy: 2 + 14 * i, textAnchor: "start", fill: roleColours[tick.role], fontWeight: 600 })),
      ...formatLines(points, 2),
      Plot.dot(points, { x: "x", y: "y", fill: (one) => formatColour(one.format), r: 2.5 }),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", ...tipStyle })),
      Plot.tip(ticks, Plot.pointerX({ x: "x", y: () => low * 1.15, title: "text", maxRadius: 8, ...tipStyle })),
    ],
  }), (plot) => points.map((one) => ({ x: plot.scale("x").apply(one.x), y: plot.scale("y").apply(one.y), text: one.text })), () => ({
    headings: ["ν", ...curves.map((curve) => curve.numerics)],
    rows: curves[0].medians.map(([nu], i) => [nu === null ? "normal" : String(nu), ...curves.map((curve) => curve.medians[i][1])]),
  }));
});
