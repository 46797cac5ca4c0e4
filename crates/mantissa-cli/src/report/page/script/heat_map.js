// Every product over the measured steps, in one colour each: sites down, steps across.

const metrics = {
  backward_error: { name: "backward error", perOperand: false, format: short, of: (row) => row.backward_error },
  of_bound: { name: "backward error, share of its bound", perOperand: false, format: percent, of: (row) => row.backward_error.map((error, i) => error !== null && row.backward_error_bound[i] ? (row.backward_error_high[i] ?? error) / row.backward_error_bound[i] : null) },
  underflow: { name: "underflow", perOperand: true, format: percent, of: (operand) => operand.underflow },
  saturation: { name: "saturation", perOperand: true, format: percent, of: (operand) => operand.saturation },
  bias: { name: "bias", perOperand: true, format: short, of: (operand) => operand.bias },
  nu: { name: "tails, ν of a Student-t", perOperand: true, format: (x) => short(x), of: (operand) => operand.nu, reversed: true },
};

const kinds = {
  promoted: { symbol: "triangle", name: "promoted to more bits", colour: "var(--series-3)" },
  demoted: { symbol: "triangle", rotate: 180, name: "demoted to fewer bits", colour: "var(--series-1)" },
  rolled_back: { symbol: "times", name: "rolled back", colour: "var(--warning)" },
  plan_changed: { symbol: "diamond", name: "plan changed", colour: "var(--series-4)" },
};
const kindOf = (change) => kinds[change.kind];

const numericsAt = (operand, step) => operand.numerics.findLast(([from]) => from <= step)?.[1] ?? "–";

// The rows of the heat map: passes, or operands of passes, with a place each and a gap between sites.
function heatRows(measured, metric) {
  const rows = [];
  let y = 0;
  let site = null;
  for (const row of measured.rows) {
    if (chosen.pass !== "all" && row.pass !== chosen.pass) continue;
    if (site !== null && row.site !== site) y += 0.45;
    const isFirst = row.site !== site;
    site = row.site;
    const operands = metric.perOperand ? row.operands.filter((operand) => metric.of(operand).some(known)) : [null];
    operands.forEach((operand, i) => rows.push({
      key: [row.site, row.pass, operand?.role ?? ""].join(" "), row, operand, y: y++, first: isFirst && i === 0,
      label: row.pass + (operand ? " " + operand.role : ""), values: metric.of(operand ?? row),
    }));
  }
  return rows;
}

function cellText(measured, metric, line, column) {
  const { row } = line;
  const step = measured.steps[column];
  const errors = row.backward_error[column];
  const operands = row.operands.map((operand) => `${operand.role}  ${numericsAt(operand, step)}` + [["underflow", percent], ["saturation", percent], ["nu", short]].map(([name, format]) => known(operand[name][column]) ? `, ${name === "nu" ? "ν" : name} ${format(operand[name][column])}` : "").join(""));
  return [
    row.site, `${row.pass} at step ${step}`,
    known(errors) ? `backward error ${short(errors)}` + (known(row.backward_error_high[column]) ? `, at most ${short(row.backward_error_high[column])}` : "") + (known(row.backward_error_bound[column]) ? `, bound ${short(row.backward_error_bound[column])}` : "") : "no backward error",
    ...operands,
  ].join("\n");
}

let heat = null;

part(() => {
  const run = theRun();
  const measured = run.measurements;
  const host = element("heat-map");
  const has = (metric) => measured?.rows.some((row) => (metric.perOperand ? row.operands : [row]).some((one) => metric.of(one).some(known)));
  choice("metric", "metric", Object.entries(metrics).filter(([, metric]) => has(metric)).map(([key, metric]) => [key, metric.name]));
  choice("heat-pass", "pass", [["all", "all passes"], ...Object.keys(passNames).map((pass) => [pass, pass])]);
  element("metric").form.hidden = !measured?.rows.length;
  const from = element("heat-source");
  const lack = lacking("measurements.jsonl");
  from.replaceChildren(...!measured ? [] : measured.from_profile
    ? ["Computed from the samples of the profile, under this run's plan. ", ...code(lack ? lack.remedy + "." : "")]
    : [`Measured during the run at ${measured.steps.length + measured.left_out} steps` + (measured.left_out ? `, of which ${measured.steps.length} are shown.` : ".")]);
  if (!measured || !measured.rows.length || !chosen.metric) {
    heat = null;
    element("heat-legend").replaceChildren();
    host.removeAttribute("tabindex");
    host.replaceChildren(node("p", { class: "empty" }, "Nothing was measured. ", ...code([lacking("profile.safetensors"), lack].filter(Boolean).map((one) => one.remedy).join("; ") + ".")));
    drawHeatDetail();
    return;
  }
  const metric = metrics[chosen.metric];
  const columns = measured.steps.map((step, i) => i).filter((i) => inRange(measured.steps[i]));
  const rows = heatRows(measured, metric);
  const width = widthOf(host);
  const narrow = width < 640;
  const cells = rows.flatMap((line, r) => columns.map((column, c) => ({ line, r, c, column, value: line.values[column] })));
  const values = cells.map((cell) => cell.value).filter((value) => known(value) && value > 0 && Number.isFinite(value));
  const [low, high] = values.length ? d3.extent(values) : [1, 10];
  const domain = low === high ? [low / 2, high * 2] : [Math.max(low, high * 1e-6), high];
  const scheme = metric.reversed ? (t) => d3.interpolateViridis(1 - t) : d3.interpolateViridis;
  const colour = d3.scaleSequentialLog(domain, scheme).clamp(true);
  element("heat-legend").replaceChildren(Plot.legend({ color: { type: "log", domain, interpolate: scheme, label: metric.name + (metric.reversed ? " (bright: heavy tails)" : ""), ticks: logTicks(...domain, 4), tickFormat: (x) => metric.format(x) }, width: Math.min(360, width), marginLeft: 10, marginRight: 30 }));
  const last = rows.at(-1)?.y ?? 0;
  const marginLeft = narrow ? 150 : 330;
  const nearest = (step) => d3.bisectLeft(columns.map((column) => measured.steps[column]), step) + (columns.length ? 0 : 1);
  const marks = run.changes.filter((change) => inRange(change.step)).map((change) => ({ change, c: Math.min(columns.length, nearest(change.step)) }));
  const onRows = marks.flatMap(({ change, c }) => rows.filter((line) => line.row.site === change.site && (!change.pass || line.row.pass === change.pass)).map((line) => ({ change, c, y: line.y })));
  const whole = marks.filter(({ change }) => !change.site);
  const chart = makePlot({
    width, height: Math.round((last + 1) * 15) + 64, marginLeft, marginRight: 14, marginTop: 18, marginBottom: 40,
    x: { domain: [0, Math.max(1, columns.length)], ticks: d3.ticks(0, columns.length, Math.min(columns.length, width / 90)).filter(Number.isInteger).filter((c) => c < columns.length).map((c) => c + 0.5), tickFormat: (c) => String(measured.steps[columns[Math.floor(c)]] ?? ""), label: "measured step", labelAnchor: "right" },
    y: { domain: [0, last + 1], axis: null, reverse: true },
    marks: [
      Plot.rect(cells, { x1: "c", x2: (cell) => cell.c + 1, y1: (cell) => cell.line.y, y2: (cell) => cell.line.y + 1, fill: (cell) => !known(cell.value) ? "var(--panel)" : colour(Math.max(cell.value, domain[0])), inset: 0.5, rx: 1.5 }),
      Plot.text(rows, { x: 0, y: (line) => line.y + 0.5, text: "label", textAnchor: "end", dx: -8, fill: "var(--quiet)", fontSize: 11 }),
      Plot.text(rows.filter((line) => line.first), { x: 0, y: (line) => line.y + 0.5, text: (line) => ending(line.row.site, narrow ? 9 : 34), textAnchor: "start", dx: 8 - marginLeft, fontSize: 11.5, fontWeight: 600 }),
      Plot.ruleX(whole, { x: "c", stroke: ({ change }) => kindOf(change).colour, strokeWidth: 2, strokeDasharray: "4 3" }),
      Plot.dot(whole, { x: "c", y: 0, dy: -8, symbol: ({ change }) => kindOf(change).symbol, fill: ({ change }) => kindOf(change).colour, stroke: ({ change }) => kindOf(change).colour, r: 5 }),
      Plot.dot(onRows, { x: (mark) => mark.c + 0.5, y: (mark) => mark.y + 0.5, symbol: ({ change }) => kindOf(change).symbol, rotate: ({ change }) => kindOf(change).rotate ?? 0, fill: "#fff", stroke: "#000", strokeWidth: 1.2, r: 5 }),
      Plot.tip(cells, Plot.pointer({ x: (cell) => cell.c + 0.5, y: (cell) => cell.line.y + 0.5, title: (cell) => cellText(measured, metric, cell.line, cell.column), maxRadius: Math.max(24, 0.55 * (width - marginLeft) / Math.max(1, columns.length)), ...tipStyle })),
    ],
    symbol: { type: "identity" },
  });
  host.replaceChildren(chart);
  host.tabIndex = 0;
  heat = { chart, rows, columns, measured, metric };
  if (!rows.some((line) => line.key === chosen.row)) chosen.row = rows[0]?.key ?? null;
  markHeatRow();
  host.onkeydown = moveInHeat;
  host.onclick = () => {
    const cell = chart.value;
    if (cell?.line) chooseHeatRow(cell.line);
  };
  host.onblur = () => chart.dispatchEvent(new PointerEvent("pointerleave", { pointerType: "mouse" }));
  numbers(element("heat-detail"), () => ({
    headings: ["site", "pass", ...(metric.perOperand ? ["operand"] : []), "first step", "last step", "largest", "at step"],
    rows: rows.map((line) => {
      const shown = columns.map((column) => line.values[column]);
      const top = d3.greatestIndex(shown, (value) => known(value) ? value : -1);
      const cell = (value) => known(value) ? metric.format(value) : "–";
      return [line.row.site, line.row.pass, ...(metric.perOperand ? [line.operand.role] : []), cell(shown.find(known)), cell(shown.findLast(known)), cell(shown[top]), top >= 0 ? String(measured.steps[columns[top]]) : "–"];
    }),
  }));
  drawHeatDetail();
});

// A frame around the chosen row, and a box around the cell that the keyboard is at.
function markHeatRow() {
  const { chart, rows, columns } = heat;
  chart.querySelectorAll(".heat-row, .heat-cell").forEach((old) => old.remove());
  const line = rows.find((one) => one.key === chosen.row);
  if (!line) return;
  const x = chart.scale("x");
  const y = chart.scale("y");
  const box = (className, from, to) => svg("rect", { class: className, x: x.apply(from) - 1, width: x.apply(to) - x.apply(from) + 2, y: y.apply(line.y), height: y.apply(line.y + 1) - y.apply(line.y), rx: 2 });
  const host = element("heat-map");
  const c = Math.min(host.column ?? columns.length - 1, columns.length - 1);
  chart.append(box("heat-row", 0, columns.length), box("heat-cell", c, c + 1));
}

function chooseHeatRow(line) {
  chosen.row = line.key;
  if (line.row.site !== chosen.site) chooseSite(line.row.site);
  else { markHeatRow(); drawHeatDetail(); }
}

function moveInHeat(event) {
  const host = element("heat-map");
  const { chart, rows, columns, measured, metric } = heat;
  let r = rows.findIndex((line) => line.key === chosen.row);
  let c = Math.min(host.column ?? columns.length - 1, columns.length - 1);
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    chooseSite(rows[r].row.site);
    return;
  }
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-6, 0], PageDown: [6, 0], Home: [0, -columns.length], End: [0, columns.length] };
  const move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  r = Math.max(0, Math.min(rows.length - 1, r + move[0]));
  c = Math.max(0, Math.min(columns.length - 1, c + move[1]));
  host.column = c;
  chosen.row = rows[r].key;
  markHeatRow();
  drawHeatDetail();
  chart.querySelector(".heat-cell").scrollIntoView({ block: "nearest", behavior: "instant" });
  point(chart, { x: chart.scale("x").apply(c + 0.5), y: chart.scale("y").apply(rows[r].y + 0.5), text: cellText(measured, metric, rows[r], columns[c]) });
}

// The chosen row as a line, with its bound and the decisions about it.
function drawHeatDetail() {
  const host = element("heat-detail");
  const line = heat?.rows.find((one) => one.key === chosen.row);
  if (!line) { host.replaceChildren(); return; }
  const { metric, measured, columns } = heat;
  const { row, operand } = line;
  const points = columns.map((column) => ({ column, step: measured.steps[column], value: line.values[column], high: operand ? null : row.backward_error_high[column], bound: operand ? null : row.backward_error_bound[column], text: cellText(measured, metric, line, column) })).filter((one) => known(one.value));
  const changes = theRun().changes.filter((change) => inRange(change.step) && (!change.site || change.site === row.site && (!change.pass || change.pass === row.pass)));
  const absolute = chosen.metric === "backward_error";
  const logarithmic = points.length > 0 && points.every((one) => one.value > 0) && chosen.metric !== "of_bound";
  const ends = points.flatMap((one) => [one.value, ...(absolute ? [one.high, one.bound].filter(known) : [])]);
  const [low, high] = [d3.min(ends) / 1.1, d3.max(ends) * 1.1 || 1];
  host.replaceChildren(
    node("h3", {}, row.site + " · " + row.pass + (operand ? " · " + operand.role : "") + " · " + metric.name),
    makePlot({
      width: widthOf(host), height: 190, marginLeft: 64, marginRight: 14,
      x: { label: "step", tickFormat: "d" },
      y: { axis: null, type: logarithmic ? "log" : "linear", domain: logarithmic ? [low, high] : [0, high] },
      marks: [
        ...axisY(logarithmic ? logTicks(low, high, 4) : d3.ticks(0, high, 4), metric.format, metric.name),
        absolute ? Plot.line(points.filter((one) => known(one.bound)), { x: "step", y: "bound", stroke: "var(--warning)", strokeDasharray: "5 4" }) : null,
        chosen.metric === "of_bound" ? Plot.ruleY([1], { stroke: "var(--warning)", strokeDasharray: "5 4" }) : null,
        absolute ? Plot.areaY(points.filter((one) => known(one.high)), { x: "step", y1: "value", y2: "high", fill: "var(--accent)", fillOpacity: 0.2 }) : null,
        Plot.ruleX(changes, { x: "step", stroke: (change) => kindOf(change).colour, strokeDasharray: "4 3" }),
        Plot.line(points, { x: "step", y: "value", stroke: "var(--accent)", strokeWidth: 2 }),
        Plot.dot(points, { x: "step", y: "value", fill: "var(--accent)", r: 2.5 }),
        Plot.tip(points, Plot.pointerX({ x: "step", y: "value", title: "text", ...tipStyle })),
      ],
    }),
  );
}
