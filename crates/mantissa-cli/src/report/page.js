"use strict";
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const element = (id) => document.getElementById(id);
  const dashes = [[], [10, 4], [2, 3], [10, 3, 2, 3], [5, 5], [14, 4], [1, 4]];
  let colour = readColours();
  // On paper every chart is drawn, also those not scrolled to yet, and fits the width of a page.
  let printing = false;
  const PAPER_WIDTH = 680;

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue("--" + name).trim();
  }
  // A line keeps its colour and dash however many runs are shown; past the palette the dash shifts, so pairs stay distinct.
  const runColour = (i) => colour("run-" + (i % dashes.length));
  const runDash = (i) => dashes[(i + Math.floor(i / dashes.length)) % dashes.length];

  const short = (x) => x === null || x === undefined ? "–" : x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(2) : String(+x.toPrecision(5));
  const percent = (x) => x === null || x === undefined ? "–" : x === 0 ? "0 %" : x < 1e-4 ? (100 * x).toExponential(1) + " %" : (100 * x).toPrecision(3) + " %";
  const node = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  // A tooltip and arrow keys for a chart; `describe(u, index)` gives the text at a position.
  function cursorPlugin(host, describe) {
    const tip = node("div", "", "tip");
    tip.hidden = true;
    const move = (u, step) => {
      const at = u.cursor.idx ?? 0;
      const next = Math.max(0, Math.min(u.data[0].length - 1, at + step));
      u.setCursor({ left: u.valToPos(u.data[0][next], "x"), top: u.over.clientHeight / 3 });
    };
    return {
      hooks: {
        init: (u) => {
          u.over.append(tip);
          u.over.addEventListener("mouseleave", () => { tip.hidden = true; });
          host.onkeydown = (event) => {
            const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
            if (step === undefined) return;
            event.preventDefault();
            move(u, step);
          };
          host.onblur = () => { tip.hidden = true; };
        },
        setCursor: (u) => {
          const text = u.cursor.idx === null || u.cursor.idx === undefined || u.cursor.left < 0 ? "" : describe(u, u.cursor.idx);
          tip.hidden = !text;
          if (!text) return;
          tip.textContent = text;
          const right = u.cursor.left > u.over.clientWidth / 2;
          tip.style.left = right ? "" : u.cursor.left + 12 + "px";
          tip.style.right = right ? u.over.clientWidth - u.cursor.left + 12 + "px" : "";
          tip.style.top = Math.max(0, Math.min(u.cursor.top, u.over.clientHeight - tip.offsetHeight)) + "px";
        },
      },
    };
  }

  const widthOf = (host) => printing ? Math.min(PAPER_WIDTH, host.clientWidth) : host.clientWidth;

  const axis = (label, more) => Object.assign({
    label, stroke: colour("quiet"), labelSize: 22, labelFont: "12px system-ui, sans-serif", font: "12px system-ui, sans-serif",
    grid: { stroke: colour("rule"), width: 0.5 }, ticks: { stroke: colour("rule"), width: 0.5 },
  }, more);

  // Runs may record different steps: one sorted step axis, null where a run has no value.
  function align(runs, field) {
    const steps = [...new Set(runs.flatMap((run) => run[field].map((point) => point[0])))].sort((a, b) => a - b);
    const index = new Map(steps.map((step, i) => [step, i]));
    const columns = runs.map((run) => {
      const column = new Array(steps.length).fill(null);
      for (const [step, value] of run[field]) column[index.get(step)] = value;
      return column;
    });
    return [steps, columns];
  }

  function movingMean(column, width) {
    const recent = [];
    let sum = 0;
    return column.map((value) => {
      if (value === null) return null;
      recent.push(value);
      sum += value;
      if (recent.length > width) sum -= recent.shift();
      return sum / recent.length;
    });
  }

  const hidden = new Set();
  let lossPlot = null;
  let scalePlot = null;

  function drawLines(host, field, label, previous, options) {
    previous?.destroy();
    const [steps, raw] = align(report.runs, field);
    if (!steps.length) return null;
    const columns = raw.map((column) => movingMean(column, options.width));
    const floor = options.floor;
    const shown = columns.filter((_, i) => !hidden.has(i)).flat().filter((v) => v !== null);
    const starts = columns.map((column) => column.find((v) => v !== null)).filter((v) => v !== undefined);
    // A diverged run must not flatten the others: the axis ends a little above where training began.
    const top = Math.min(Math.max(...shown, floor ?? -Infinity), Math.max(...starts) * 1.15);
    const bottom = Math.min(...shown, floor ?? Infinity);
    const margin = 0.05 * (top - bottom || Math.abs(top) || 1);
    const series = report.runs.map((run, i) => ({
      label: run.name, stroke: runColour(i), width: 2, dash: runDash(i), show: !hidden.has(i), spanGaps: true, points: { show: steps.length < 2 },
    }));
    const data = [steps, ...columns];
    if (floor !== null && floor !== undefined) {
      series.push({ label: "floor", stroke: colour("quiet"), width: 1, dash: [3, 3], points: { show: false } });
      data.push(steps.map(() => floor));
    }
    const describe = (u, i) => [
      "step " + steps[i],
      ...report.runs.flatMap((run, r) => hidden.has(r) || columns[r][i] === null ? [] : [run.name + "  " + short(columns[r][i])]),
      ...(floor === null || floor === undefined ? [] : ["floor  " + short(floor)]),
    ].join("\n");
    return new uPlot({
      width: widthOf(host), height: 300, legend: { show: false }, cursor: { y: false, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: options.logarithmic ? { distr: 3, log: 2 } : { range: shown.length ? [bottom - margin, top + margin] : [0, 1] } },
      axes: [axis("step", { size: 34 }), axis(label, { size: 64, values: (u, ticks) => ticks.map((t) => t === null ? "" : short(t)) })],
      series: [{}, ...series], plugins: [cursorPlugin(host, describe)],
    }, data, host);
  }

  function drawRuns() {
    lossPlot = drawLines(element("loss-chart"), "losses", "loss", lossPlot, { width: +element("smoothing").value, floor: report.loss_floor });
    const scaled = report.runs.some((run) => run.loss_scale.length);
    element("scale-block").hidden = !scaled;
    if (scaled) scalePlot = drawLines(element("scale-chart"), "loss_scale", "loss scale", scalePlot, { width: 1, floor: null, logarithmic: true });
  }

  function swatch(i) {
    const canvas = node("canvas", undefined, "swatch");
    const ratio = devicePixelRatio || 1;
    canvas.width = 28 * ratio;
    canvas.height = 12 * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.strokeStyle = runColour(i);
    context.lineWidth = 2.5;
    context.setLineDash(runDash(i));
    context.moveTo(0, 6);
    context.lineTo(28, 6);
    context.stroke();
    return canvas;
  }

  function drawToggles() {
    const fieldset = element("run-toggles");
    fieldset.querySelectorAll("label").forEach((label) => label.remove());
    report.runs.forEach((run, i) => {
      const label = node("label");
      const box = node("input");
      box.type = "checkbox";
      box.checked = !hidden.has(i);
      box.onchange = () => { hidden[box.checked ? "delete" : "add"](i); drawRuns(); };
      label.append(box, " ", swatch(i), run.name);
      fieldset.append(label);
    });
    if (report.loss_floor !== null) fieldset.append(node("label", "⋯ floor " + short(report.loss_floor)));
  }

  const LANE = 17;

  function lanesOf(operand) {
    const top = operand.amax > 0 ? Math.log2(operand.amax) : null;
    const scaled = element("window-mode").value === "scaled" && top !== null;
    const shift = (window) => scaled ? top - window.max : 0;
    const lanes = report.windows.map((w) => ({ label: w.format, subnormal: w.subnormal + shift(w), normal: w.normal + shift(w), max: w.max + shift(w) }));
    if (operand.window) lanes.push(Object.assign({ label: operand.numerics, chosen: true }, operand.window));
    return lanes;
  }

  // Bars over the histogram, one lane a format, on the histogram's own exponent axis.
  function drawLanes(u, lanes) {
    const context = u.ctx;
    const ratio = devicePixelRatio || 1;
    const { left, top, width, height } = u.bbox;
    const at = (exponent) => Math.max(left, Math.min(left + width, u.valToPos(exponent, "x", true)));
    context.save();
    context.font = 11 * ratio + "px system-ui, sans-serif";
    context.textBaseline = "middle";
    lanes.forEach((lane, i) => {
      const y = top + (i * LANE + 3) * ratio;
      const thick = (LANE - 5) * ratio;
      const [from, normal, to] = [at(lane.subnormal), at(lane.normal), at(lane.max)];
      const hue = colour(lane.chosen ? "accent" : "bar");
      context.fillStyle = hue;
      context.globalAlpha = lane.chosen ? 0.35 : 0.25;
      context.fillRect(from, y, normal - from, thick);
      context.globalAlpha = lane.chosen ? 0.9 : 0.55;
      context.fillRect(normal, y, to - normal, thick);
      if (lane.chosen) {
        context.globalAlpha = 0.08;
        context.fillRect(from, top, to - from, height);
        context.globalAlpha = 1;
        context.strokeStyle = hue;
        context.lineWidth = ratio;
        context.setLineDash([4 * ratio, 3 * ratio]);
        for (const x of [from, normal, to]) {
          context.beginPath();
          context.moveTo(x, top);
          context.lineTo(x, top + height);
          context.stroke();
        }
      }
      // The label sits in the empty margin beside its bar: left of it where there is room, else on it.
      context.globalAlpha = 1;
      context.fillStyle = colour("text");
      const text = (lane.chosen ? "▸ " : "") + lane.label;
      const room = context.measureText(text).width + 6 * ratio;
      if (from - left > room) {
        context.textAlign = "right";
        context.fillText(text, from - 4 * ratio, y + thick / 2);
      } else {
        context.textAlign = "left";
        context.fillText(text, to + room < left + width ? to + 4 * ratio : left + 4 * ratio, y + thick / 2);
      }
    });
    context.restore();
  }

  function drawOperand(card, operand) {
    const host = node("div", undefined, "chart");
    host.tabIndex = 0;
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", "Exponent histogram of " + [operand.site, operand.pass, operand.role].join(" "));
    card.querySelector(".chart")?.remove();
    card.append(host);
    const lanes = lanesOf(operand);
    const counted = operand.histogram.filter(([, count]) => count > 0);
    const total = operand.zeros + counted.reduce((sum, [, count]) => sum + count, 0);
    if (!counted.length) {
      host.textContent = "No finite non-zero element.";
      return;
    }
    const exponents = counted.map(([exponent]) => exponent);
    const low = Math.min(-18, ...exponents) - 1;
    const high = Math.max(18, ...exponents.map((e) => e + 1)) + 1;
    const share = new Array(high - low).fill(null);
    for (const [exponent, count] of counted) share[exponent - low] = count / total;
    const peak = Math.max(...share);
    const logarithmic = element("share-axis").value === "log";
    const least = Math.min(...share.filter((s) => s !== null));
    const height = 300;
    const room = (lanes.length * LANE + 8) / (height - 66);
    // The top of the axis is raised so that the tallest bar ends below the lanes.
    const range = logarithmic
      ? [10 ** Math.floor(Math.log10(least) - 0.3), peak * (10 ** (Math.log10(peak) - Math.floor(Math.log10(least) - 0.3))) ** (room / (1 - room))]
      : [0, peak / (1 - room)];
    const steps = share.map((_, i) => low + i + 0.5);
    // No tick among the lanes, and on a logarithmic axis only the powers of ten.
    const major = (u, splits) => splits.map((s) => s > peak * 1.5 || logarithmic && Math.abs(Math.log10(s) - Math.round(Math.log10(s))) > 1e-6 ? null : s);
    const describe = (u, i) => {
      const exponent = low + i;
      const below = counted.filter(([e]) => e < exponent).reduce((sum, [, count]) => sum + count, 0) / total;
      return "2^" + exponent + " to 2^" + (exponent + 1) + "\n" + percent(share[i] ?? 0) + " of elements\n" + percent(below) + " smaller, zeros apart";
    };
    new uPlot({
      width: widthOf(host), height, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, range: [low, high] }, y: logarithmic ? { distr: 3, range } : { range } },
      axes: [
        axis("log₂ |x|", { size: 34, incrs: [1, 2, 4, 8, 16, 32, 64], space: 36 }),
        axis("share", { size: 56, filter: major, grid: { stroke: colour("rule"), width: 0.5, filter: major }, ticks: { stroke: colour("rule"), width: 0.5, filter: major }, values: (u, ticks) => ticks.map((t) => t === null ? "" : logarithmic ? "10^" + Math.round(Math.log10(t)) : percent(t)) }),
      ],
      series: [{}, { stroke: colour("bar"), fill: colour("bar"), paths: uPlot.paths.bars({ size: [1, Infinity], gap: 1 }), points: { show: false } }],
      hooks: { draw: [(u) => drawLanes(u, lanes)] },
      plugins: [cursorPlugin(host, describe)],
    }, [steps, share], host);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      drawOperand(entry.target, report.operands[+entry.target.dataset.operand]);
    }
  }, { rootMargin: "400px" });

  function filtered() {
    const wanted = ["site", "pass", "role"].map((field) => [field, element("filter-" + field).value]);
    return report.operands.map((operand, i) => [operand, i]).filter(([operand]) => wanted.every(([field, value]) => value === "" || operand[field] === value));
  }

  function drawOperands() {
    const grid = element("operand-charts");
    seen.disconnect();
    grid.replaceChildren();
    const matching = filtered();
    for (const [operand, i] of matching) {
      const card = node("article", undefined, "card");
      card.dataset.operand = i;
      card.append(node("h3", operand.site + " · " + operand.pass + " · " + operand.role));
      card.append(node("p", [
        operand.numerics, "amax " + short(operand.amax), "zeros " + percent(operand.zeros / (operand.count || 1)),
        "underflow " + percent(operand.underflow), "saturation " + percent(operand.saturation),
        ...(operand.sqnr_db === null ? [] : ["SQNR " + operand.sqnr_db.toFixed(1) + " dB"]),
        ...(operand.student_nu === null ? [] : ["Student-t ν " + short(operand.student_nu)]),
      ].join(" · ")));
      const space = node("div", undefined, "chart");
      card.append(space);
      grid.append(card);
      if (printing) drawOperand(card, operand); else seen.observe(card);
    }
    element("operand-count").textContent = matching.length + " of " + report.operands.length + " operands";
  }

  function fillFilters() {
    for (const field of ["site", "pass", "role"]) {
      const select = element("filter-" + field);
      const values = [...new Set(report.operands.map((operand) => operand[field]))];
      select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
      // A whole model is hundreds of charts: begin with one site.
      if (field === "site" && values.length > 1) select.value = values[0];
      select.onchange = drawOperands;
    }
    element("window-mode").onchange = drawOperands;
    element("share-axis").onchange = drawOperands;
  }

  const key = (cell) => cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : +cell.dataset.value;

  function makeSortable(table) {
    table.querySelectorAll("thead th").forEach((heading, column) => {
      const button = node("button", heading.textContent);
      button.type = "button";
      heading.replaceChildren(button);
      button.onclick = () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [row, key(row.cells[column])]);
        // Undefined values stay last in both directions.
        const missing = (value) => value === "–" || Number.isNaN(value);
        rows.sort(([, a], [, b]) => missing(a) - missing(b) || (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
        body.append(...rows.map(([row]) => row));
      };
    });
  }

  function search() {
    const words = element("decision-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.querySelectorAll("#decision-table tbody tr")];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    element("decision-count").textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " decisions";
  }

  function drawAll() {
    colour = readColours();
    drawToggles();
    drawRuns();
    drawOperands();
  }

  document.querySelectorAll("form").forEach((form) => { form.onsubmit = (event) => event.preventDefault(); });
  document.querySelectorAll("table.data").forEach(makeSortable);
  element("smoothing").onchange = drawRuns;
  element("decision-search").oninput = search;
  fillFilters();
  search();
  drawAll();
  let pending = 0;
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(pending);
    pending = setTimeout(drawAll, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("print").addEventListener("change", (event) => { printing = event.matches; drawAll(); });
  for (const [event, state] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => { printing = state; drawAll(); });
  }
})();
