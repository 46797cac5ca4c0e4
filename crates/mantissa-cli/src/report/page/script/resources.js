// Memory by copy and step time by part, one bar for each group.

// One run of each group stands for it: its seeds take the same.
const oneOfEach = () => report.groups.map((group) => ({ name: group.name, run: report.runs[group.runs[0]] }));

function stackedBars(id, legendId, pieces, marks, { label, format, ticksOf, lack, colourOf }) {
  const names = [...new Set(pieces.map((piece) => piece.part))];
  element(legendId).replaceChildren(...names.map((name) => node("span", {}, boxSwatch(colourOf(name)), name)));
  const bars = [...new Set(pieces.map((piece) => piece.name))];
  for (const piece of pieces) piece.text = `${piece.name}\n${piece.part}: ${format(piece.value)}${piece.note ?? ""}`;
  figure(id, (width) => {
    if (!pieces.length) return lack;
    const narrow = width < 640;
    return makePlot({
      width, height: 58 + 34 * bars.length, marginLeft: narrow ? 110 : 200, marginRight: 24,
      x: { label, grid: true, tickFormat: format, ticks: ticksOf(d3.max(bars, (bar) => d3.sum(pieces.filter((piece) => piece.name === bar), (piece) => piece.value)), Math.max(2, Math.floor(width / 140))) },
      y: { label: null, domain: bars, tickSize: 0, tickFormat: (name) => ending(name, narrow ? 15 : 28), padding: 0.25 },
      marks: [
        Plot.barX(pieces, Plot.stackX({ x: "value", y: "name", z: "part", order: names, fill: (piece) => colourOf(piece.part), inset: 0.75, rx: 2 })),
        Plot.tickX(marks, { x: "value", y: "name", stroke: "var(--text)", strokeWidth: 2.5 }),
        Plot.tip(pieces, Plot.pointer(Plot.stackX({ x: "value", y: "name", z: "part", order: names, title: "text", ...tipStyle }))),
      ],
    });
  }, (plot) => {
    const ends = new Map();
    return pieces.map((piece) => {
      const from = ends.get(piece.name) ?? 0;
      ends.set(piece.name, from + piece.value);
      return { x: plot.scale("x").apply(from + piece.value / 2), y: plot.scale("y").apply(piece.name) + 12, text: piece.text };
    });
  }, pieces.length ? () => ({ headings: ["run", "part", "value"], rows: pieces.map((piece) => [piece.name, piece.part, format(piece.value)]) }) : null);
}

part(() => {
  const pieces = [];
  const peaks = [];
  for (const { name, run } of oneOfEach()) {
    const expected = run.memory?.expected;
    if (!expected) continue;
    for (const copy of expected.copies ?? []) pieces.push({ name, part: copy.name, value: copy.bytes, note: expected.parameters ? `, ${short(copy.bytes / expected.parameters)} bytes a parameter` : "" });
    if (known(expected.activations)) pieces.push({ name, part: "activations", value: expected.activations, note: `, of ${expected.sequences} sequences` });
    if (known(run.memory.peak)) peaks.push({ name, value: run.memory.peak });
  }
  const colours = new Map([["weights", 1], ["gradients", 5], ["activations", 6]]);
  let next = 3;
  for (const piece of pieces) if (!colours.has(piece.part)) { colours.set(piece.part, next % 8); next += next === 4 ? 3 : 1; }
  const lack = lacking("memory.json");
  stackedBars("memory-chart", "memory-legend", pieces, peaks, { label: "memory", format: bytes, ticksOf: byteTicks, lack: "No memory.json: " + (lack?.remedy.replaceAll("`", "") ?? "") + ".", colourOf: (name) => groupColour(colours.get(name)) });
  if (peaks.length) element("memory-legend").append(node("span", {}, node("span", { class: "tick", "aria-hidden": "true" }), "measured peak"));
});

part(() => {
  const pieces = [];
  for (const { name, run } of oneOfEach()) {
    const { seconds, steps } = run.timing ?? {};
    if (!seconds || !steps) continue;
    const all = d3.sum(Object.values(seconds));
    for (const [piece, value] of Object.entries(seconds)) pieces.push({ name, part: piece, value: value / steps, note: `, ${percent(value / all)} of a step, over ${steps} steps` });
  }
  const order = ["data", "forward", "backward", "update", "measuring"];
  const lack = lacking("timing.json");
  stackedBars("time-chart", "time-legend", pieces, [], { label: "time per step", format: milliseconds, ticksOf: (high, most) => d3.ticks(0, high, most), lack: "No timing.json: " + (lack?.remedy.replaceAll("`", "") ?? "") + ".", colourOf: (name) => groupColour([7, 1, 5, 3, 4][order.indexOf(name)] ?? 6) });
});
