// What rows of a study lost, against what their numerics were predicted to lose.

part(() => {
  const rows = report.groups.filter((group) => known(group.predicted_quality_loss) && known(group.gap));
  element("prediction").hidden = rows.length < 2;
  if (rows.length < 2) return;
  const least = d3.min(rows.filter((row) => row.predicted_quality_loss > 0), (row) => row.predicted_quality_loss) ?? 1e-4;
  const points = rows.map((row) => ({
    // A logarithmic axis has no zero: what is predicted to lose nothing stands left of everything else.
    x: Math.max(row.predicted_quality_loss, least / 2), y: row.gap, spread: row.gap_deviation ?? 0,
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
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", ...tipStyle })),
    ],
  }), (plot) => points.map((one) => ({ x: plot.scale("x").apply(one.x), y: plot.scale("y").apply(one.y), text: one.text })), () => ({
    headings: ["row", "predicted quality loss", "final loss above the first", "± deviation"],
    rows: rows.map((row) => [row.name, percent(row.predicted_quality_loss), row.gap, row.gap_deviation]),
  }));
});
