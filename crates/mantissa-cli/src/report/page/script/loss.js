// Training loss by step: one line for each group of seeds, with a band over them.

function movingMean(values, width) {
  const recent = [];
  let sum = 0;
  return values.map((value) => {
    if (value === null) return null;
    recent.push(value);
    sum += value;
    if (recent.length > width) sum -= recent.shift();
    return sum / recent.length;
  });
}

// The runs of a group on common steps: at each the mean, the ends of the band, and how many runs there are.
function groupCurve(group, value) {
  const at = new Map();
  for (const index of group.runs) {
    const { steps, losses, stretch } = report.runs[index].history;
    const smooth = movingMean(losses, Math.max(1, Math.round(+chosen.smoothing / stretch)));
    steps.forEach((step, i) => {
      const loss = smooth[i] === null ? null : value(smooth[i]);
      if (loss === null || !inRange(step)) return;
      if (!at.has(step)) at.set(step, []);
      at.get(step).push(loss);
    });
  }
  return [...at].sort((a, b) => a[0] - b[0]).map(([step, losses]) => {
    const mean = d3.mean(losses);
    const deviation = d3.deviation(losses) ?? 0;
    const [low, high] = chosen.band === "deviation" ? [mean - deviation, mean + deviation] : d3.extent(losses);
    return { step, mean, low, high, runs: losses.length };
  });
}

const singleCurve = (group, index, value) => groupCurve({ runs: [index] }, value);

part(() => {
  const severalSeeds = report.groups.some((group) => group.runs.length > 1);
  choice("smoothing", "smoothing", [["10", "10 steps"], ["1", "1 step"], ["50", "50 steps"], ["200", "200 steps"]]);
  choice("band", "band", [["extent", "smallest to largest"], ["deviation", "± one deviation"], ["single", "none: single runs"]]);
  element("band").closest("label").hidden = !severalSeeds;
  choice("loss-axis", "lossAxis", [["loss", "loss"], ...(report.loss_floor !== null ? [["above", "above the floor, logarithmic"]] : [])]);
  const floor = report.loss_floor;
  const above = chosen.lossAxis === "above";
  const value = above ? (loss) => loss > floor ? loss - floor : null : (loss) => loss;
  const curves = report.groups.map((group, i) => ({ group, i, points: chosen.hidden.has(group.name) ? [] : groupCurve(group, value) }));
  const shown = curves.filter((curve) => curve.points.length);

  legend(element("loss-legend"));
  figure("loss-chart", (width) => {
    if (!shown.length) return "No step is logged yet.";
    const means = shown.flatMap((curve) => curve.points.map((point) => point.mean));
    const starts = shown.map((curve) => curve.points[0].mean);
    // A diverged run must not flatten the others: the axis ends a little above where training began.
    const top = Math.min(Math.max(...shown.flatMap((curve) => curve.points.map((point) => point.high))), Math.max(...starts) * (above ? 3 : 1.15));
    const bottom = Math.min(...means, above || floor === null ? Infinity : floor);
    const margin = above ? 0 : 0.04 * (top - bottom || 1);
    const single = chosen.band === "single";
    const rows = tipRows(shown);
    return makePlot({
      width, height: Math.min(420, Math.max(260, width * 0.42)), marginLeft: 52, marginRight: 14,
      x: { label: "step", tickFormat: "d", grid: false },
      y: { axis: null, type: above ? "log" : "linear", domain: above ? [bottom, top] : [bottom - margin, top + margin] },
      marks: [
        ...axisY(above ? logTicks(bottom, top) : d3.ticks(bottom, top, 6), short, above ? "loss above the floor" : "loss"),
        floor !== null && !above ? Plot.ruleY([floor], { stroke: "var(--quiet)", strokeDasharray: "3 3" }) : null,
        floor !== null && !above ? Plot.text([floor], { y: (x) => x, text: (x) => "floor " + x.toFixed(4), frameAnchor: "right", dy: -7, fill: "var(--quiet)", textAnchor: "end" }) : null,
        ...shown.flatMap(({ group, i, points }) => [
          group.runs.length > 1 && !single ? Plot.areaY(points, { x: "step", y1: "low", y2: "high", fill: groupColour(i), fillOpacity: 0.16, clip: true }) : null,
          ...(single ? group.runs : []).map((index) => Plot.line(singleCurve(group, index, value), { x: "step", y: "mean", stroke: groupColour(i), strokeWidth: 1.2, strokeDasharray: groupDash(i), clip: true })),
          single ? null : Plot.line(points, { x: "step", y: "mean", stroke: groupColour(i), strokeWidth: 2, strokeDasharray: groupDash(i), clip: true }),
          points.length === 1 ? Plot.dot(points, { x: "step", y: "mean", fill: groupColour(i) }) : null,
        ]),
        Plot.ruleX(rows, Plot.pointerX({ x: "step", stroke: "var(--quiet)", strokeOpacity: 0.6, maxRadius: 1e4 })),
        Plot.tip(rows, Plot.pointerX({ x: "step", y: (row) => Math.min(row.y, top), title: "text", maxRadius: 1e4, ...tipStyle })),
      ],
    });
  }, (plot) => tipRows(shown).map((row) => ({ x: plot.scale("x").apply(row.step), y: 60, text: row.text })), () => ({
    headings: ["step", ...shown.flatMap(({ group }) => group.runs.length > 1 ? [group.name, "lowest", "highest"] : [group.name])],
    rows: thinned(tipRows(shown), 60).map((row) => [String(row.step), ...shown.flatMap((curve) => {
      const point = row.points.get(curve);
      return curve.group.runs.length > 1 ? [point?.mean, point?.low, point?.high] : [point?.mean];
    })]),
  }));
});

const thinned = (rows, most) => rows.filter((_, i) => i % Math.ceil(rows.length / most) === 0 || i === rows.length - 1);

// One row for each step that any line has.
function tipRows(shown) {
  const rows = new Map();
  for (const curve of shown) {
    for (const point of curve.points) {
      if (!rows.has(point.step)) rows.set(point.step, { step: point.step, y: point.mean, points: new Map() });
      rows.get(point.step).points.set(curve, point);
    }
  }
  const sorted = [...rows.values()].sort((a, b) => a.step - b.step);
  for (const row of sorted) {
    const lines = [...row.points].map(([{ group }, point]) => group.name + "  " + short(point.mean, 5) + (point.runs > 1 && point.high > point.low ? `  (${short(point.low, 4)} to ${short(point.high, 4)}, ${point.runs} seeds)` : ""));
    row.text = ["step " + row.step, ...lines].join("\n");
  }
  return sorted;
}

function legend(host) {
  const focused = host.contains(document.activeElement) ? document.activeElement.value : null;
  host.replaceChildren(...report.groups.map((group, i) => {
    const box = node("input", { type: "checkbox", value: group.name });
    box.checked = !chosen.hidden.has(group.name);
    box.onchange = () => { chosen.hidden[box.checked ? "delete" : "add"](group.name); draw(); };
    const seeds = group.runs.length > 1 ? ` (${group.runs.length} seeds)` : "";
    return node("label", {}, box, " ", lineSwatch(i), group.name + seeds);
  }));
  if (focused !== null) [...host.querySelectorAll("input")].find((box) => box.value === focused)?.focus();
}
