// What rows of a study lost, against what their numerics were predicted to lose.

// Names beside points, to the right or else to the left, where there is room: those that lost most come first.
function namesBeside(points) {
  const sides = new Map();
  const choose = (indices, { x, y, spread, text }, scales, { width }) => {
    const box = (left, right, top, bottom) => ({ left: Math.min(left, right), right: Math.max(left, right), top, bottom });
    const at = (i) => scales.x(x.value[i]);
    const taken = indices.map((i) => box(at(i) - 4, at(i) + 4, scales.y(y.value[i] + spread.value[i]) - 4, scales.y(y.value[i] - spread.value[i]) + 4));
    const isFree = (name) => name.left >= 0 && name.right <= width
      && !taken.some((other) => other.right > name.left && other.left < name.right && other.bottom > name.top && other.top < name.bottom);
    for (const i of indices.toSorted((a, b) => y.value[b] - y.value[a])) {
      const name = (side) => box(at(i) + 7 * side, at(i) + (7 + 6 * text.value[i].length) * side, scales.y(y.value[i]) - 6, scales.y(y.value[i]) + 6);
      const side = [1, -1].find((side) => isFree(name(side)));
      if (side) taken.push(name(side));
      sides.set(i, side);
    }
  };
  return [1, -1].map((side) => Plot.text(points, Plot.initializer(
    { x: "x", y: "y", channels: { spread: "spread" }, text: "name", textAnchor: side > 0 ? "start" : "end", dx: 8 * side, fontSize: 11, fill: "var(--quiet)" },
    (data, facets, channels, scales, dimensions) => {
      if (sides.size === 0) choose(facets.flatMap((indices) => [...indices]), channels, scales, dimensions);
      return { data, facets: facets.map((indices) => indices.filter((i) => sides.get(i) === side)), channels: {} };
    },
  )));
}

part(() => {
  const rows = report.groups.filter((group) => known(group.predicted_quality_loss) && known(group.gap));
  element("prediction").hidden = element("prediction-link").hidden = rows.length < 2;
  if (rows.length < 2) return;
  const least = d3.min(rows.filter((row) => row.predicted_quality_loss > 0), (row) => row.predicted_quality_loss) ?? 1e-4;
  const points = rows.map((row) => ({
    // A logarithmic axis has no zero: what is predicted to lose nothing stands left of everything else.
    x: Math.max(row.predicted_quality_loss, least / 2), y: row.gap, spread: row.gap_deviation ?? 0, name: row.name,
    text: `${row.name}\npredicted: ${percent(row.predicted_quality_loss)} of a step's progress\nmeasured: ${row.gap >= 0 ? "+" : "−"}${short(Math.abs(row.gap))}${known(row.gap_deviation) ? ` ± ${short(row.gap_deviation)}` : ""} nats`,
  })).sort((a, b) => a.x - b.x);
  const high = d3.max(points, (one) => one.x) * 1.3;
  figure("prediction-chart", (width) => makePlot({
    width, height: 320, marginLeft: 60, marginRight: 20, marginBottom: 40,
    x: { type: "log", axis: null, domain: [least / 3, high] },
    y: { grid: true, label: `final loss above that of ${report.groups[0].name}`, tickSize: 0 },
    marks: [
      Plot.axisX(logTicks(least, high), { text: percent, label: "predicted quality loss, of a step's progress" }),
      Plot.ruleY([0], { stroke: "var(--quiet)" }),
      Plot.ruleX(points.filter((one) => one.spread > 0), { x: "x", y1: (one) => one.y - one.spread, y2: (one) => one.y + one.spread, stroke: groupColour(0), strokeOpacity: 0.55 }),
      Plot.dot(points, { x: "x", y: "y", fill: groupColour(0), r: 3.5 }),
      ...namesBeside(points),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", ...tipStyle })),
    ],
  }), (plot) => points.map((one) => ({ x: plot.scale("x").apply(one.x), y: plot.scale("y").apply(one.y), text: one.text })), () => ({
    headings: ["row", "predicted quality loss", "final loss above the first", "± deviation"],
    rows: rows.map((row) => [row.name, percent(row.predicted_quality_loss), row.gap, row.gap_deviation]),
  }));
});
