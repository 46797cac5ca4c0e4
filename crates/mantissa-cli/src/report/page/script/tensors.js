// How the values of the chosen site's tensors are distributed: by exponent, with the range of formats over it, and by value.

const LANE = 19;

// The range of numerics on a tensor: where it is scaled, that of the group that holds its largest magnitude.
function windowOf(format, scaled, amax) {
  const range = report.ranges[format];
  if (!range) return null;
  const shift = scaled && amax > 0 ? Math.log2(amax) - range.max : 0;
  return { subnormal: range.subnormal + shift, normal: range.normal + shift, max: range.max + shift };
}

function lanesOf(tensor) {
  const scaled = chosen.windows === "scaled";
  const lanes = report.windows.map((format) => ({ label: format, ...windowOf(format, scaled, tensor.amax) }));
  const site = thePlan()?.sites.find((one) => one.name === tensor.site);
  const used = new Map();
  for (const decision of site?.passes ?? []) {
    for (const operand of decision.operands) {
      if (operand.role !== tensor.role || operand.format === "fp32") continue;
      if (!used.has(operand.numerics)) used.set(operand.numerics, { label: operand.numerics, passes: [], chosen: true, ...windowOf(operand.format, operand.scaled, tensor.amax) });
      used.get(operand.numerics).passes.push(decision.pass);
    }
  }
  return [...lanes, ...used.values()];
}

function exponentChart(tensor, width) {
  const lanes = lanesOf(tensor);
  const counted = tensor.exponents.filter(([, count]) => count > 0);
  const total = tensor.count || 1;
  const low = Math.min(-24, counted[0][0] - 1);
  const high = Math.max(4, counted.at(-1)[0] + 2);
  const bars = counted.map(([exponent, count]) => ({ exponent, share: count / total }));
  const logarithmic = chosen.share !== "linear";
  const floor = logarithmic ? 10 ** Math.floor(Math.log10(Math.min(...bars.map((bar) => bar.share)))) : 0;
  const top = Math.max(...bars.map((bar) => bar.share)) * (logarithmic ? 1.6 : 1.08);
  let below = 0;
  for (const bar of bars) {
    bar.text = `2${superscript(bar.exponent)} to 2${superscript(bar.exponent + 1)}\n${percent(bar.share)} of elements\n${percent(below)} smaller, zeros apart`;
    below += bar.share;
  }
  const head = LANE * lanes.length + 10;
  const height = head + 190;
  const marginLeft = 48;
  const clamp = (x) => Math.max(low, Math.min(high, x));
  const chart = makePlot({
    width, height, marginLeft, marginRight: 10, marginTop: head, marginBottom: 36,
    x: { domain: [low, high], label: "log₂ |x|", ticks: Math.max(3, Math.floor(width / 70)) },
    y: { type: logarithmic ? "log" : "linear", domain: [logarithmic ? floor : 0, top], axis: null },
    marks: [
      ...(logarithmic ? axisY(logTicks(floor, top, 5), powerOfTen) : axisY(d3.ticks(0, top, 4), percent)),
      Plot.rect(bars, { x1: "exponent", x2: (bar) => bar.exponent + 1, y1: logarithmic ? floor : 0, y2: "share", fill: "var(--bar)", insetLeft: 0.5, insetRight: 0.5, rx: 1 }),
      Plot.tip(bars, Plot.pointerX({ x: (bar) => bar.exponent + 0.5, y: "share", title: "text", maxRadius: 40, ...tipStyle })),
    ],
  });
  const x = (value) => chart.scale("x").apply(clamp(value));
  const over = svg("g", { class: "lanes", "aria-hidden": "true" });
  lanes.forEach((lane, i) => {
    const y = 4 + i * LANE;
    const [from, normal, to] = [x(lane.subnormal), x(lane.normal), x(lane.max)];
    const className = lane.chosen ? " chosen" : "";
    if (lane.chosen) over.append(svg("rect", { x: from, width: Math.max(0, to - from), y, height: height - 36 - y, class: "reach" }));
    over.append(svg("rect", { x: from, width: Math.max(0, normal - from), y, height: LANE - 7, class: "subnormal" + className, rx: 2 }));
    over.append(svg("rect", { x: normal, width: Math.max(0, to - normal), y, height: LANE - 7, class: "normal" + className, rx: 2 }));
    const label = svg("text", { y: y + 10, class: "lane-label" + className });
    label.textContent = lane.label;
    const room = 6.4 * lane.label.length + 8;
    const onLeft = from - marginLeft > room;
    const onRight = to + room < width;
    label.setAttribute("x", onLeft ? from - 5 : onRight ? to + 5 : normal + 5);
    label.setAttribute("text-anchor", onLeft ? "end" : "start");
    if (!onLeft && !onRight) label.classList.add("inside");
    over.append(label);
  });
  chart.insertBefore(over, chart.firstChild.nextSibling);
  return { chart, stops: bars.map((bar) => ({ x: chart.scale("x").apply(bar.exponent + 0.5), y: chart.scale("y").apply(bar.share), text: bar.text })) };
}

// The density of a Student-t with location and scale.
function studentDensity(nu, location, scale) {
  const constant = Math.exp(logGamma((nu + 1) / 2) - logGamma(nu / 2)) / (Math.sqrt(nu * Math.PI) * scale);
  return (x) => constant * (1 + ((x - location) / scale) ** 2 / nu) ** (-(nu + 1) / 2);
}

// Lanczos' approximation, good to 15 digits for positive arguments.
function logGamma(x) {
  const coefficients = [676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const t = x + 6.5;
  const sum = coefficients.reduce((sum, c, i) => sum + c / (x + i), 0.99999999999980993);
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

function valueChart(tensor, width) {
  const { reach, counts, nu, location, scale } = tensor.values;
  const size = 2 * reach / counts.length;
  const total = d3.sum(counts);
  const bars = counts.map((count, i) => ({ from: -reach + i * size, to: -reach + (i + 1) * size, count })).filter((bar) => bar.count > 0);
  for (const bar of bars) bar.text = `${short(bar.from)} to ${short(bar.to)}\n${bar.count} of ${total} sampled elements`;
  const most = Math.max(...bars.map((bar) => bar.count), 10) * 1.6;
  const density = known(nu) ? studentDensity(nu, location, scale) : null;
  const fit = density ? d3.range(-reach, reach + size / 2, size / 2).map((x) => ({ x, y: density(x) * size * total })).filter((one) => one.y >= 0.5) : [];
  const chart = makePlot({
    width, height: 210, marginLeft: 48, marginRight: 10, marginTop: 14,
    x: { domain: [-reach, reach], label: "x", ticks: Math.max(3, Math.floor(width / 90)), tickFormat: (x) => short(x) },
    y: { type: "log", domain: [0.5, most], axis: null },
    marks: [
      ...axisY(logTicks(1, most, 5), powerOfTen),
      Plot.rect(bars, { x1: "from", x2: "to", y1: 0.5, y2: "count", fill: "var(--bar)", fillOpacity: 0.8, clip: true }),
      Plot.line(fit, { x: "x", y: "y", stroke: "var(--accent)", strokeWidth: 2, clip: true }),
      Plot.tip(bars, Plot.pointerX({ x: (bar) => (bar.from + bar.to) / 2, y: "count", title: "text", maxRadius: 40, ...tipStyle })),
    ],
  });
  return { chart, stops: bars.map((bar) => ({ x: chart.scale("x").apply((bar.from + bar.to) / 2), y: chart.scale("y").apply(bar.count), text: bar.text })) };
}

part(() => {
  choice("windows", "windows", [["scaled", "scaled to the tensor"], ["unscaled", "unscaled"]]);
  choice("share", "share", [["log", "logarithmic"], ["linear", "linear"]]);
  const grid = element("tensor-grid");
  const tensors = theTensors().filter((tensor) => tensor.site === chosen.site);
  const lack = lacking("profile.safetensors");
  if (!tensors.length) {
    grid.replaceChildren(node("p", { class: "empty" }, theTensors().length ? "This site was not measured." : "There is no profile of this run. ", ...(theTensors().length || !lack ? [] : code(lack.remedy + " measures one."))));
    return;
  }
  // Cards stay where they are, so that the keyboard keeps its place.
  const kept = new Map([...grid.querySelectorAll("article")].map((card) => [card.dataset.role, card]));
  const cards = tensors.map((tensor) => kept.get(tensor.role) ?? node("article", { class: "card", "data-role": tensor.role }, node("h3"), node("p"), node("div", { class: "chart", id: "exponents-" + tensor.role, role: "img" }), node("h4"), node("div", { class: "chart", id: "values-" + tensor.role, role: "img" })));
  if (cards.some((card, i) => grid.children[i] !== card) || grid.children.length !== cards.length) grid.replaceChildren(...cards);
  tensors.forEach((tensor, i) => {
    const [heading, facts, exponents, title, values] = cards[i].children;
    heading.textContent = roleNames[tensor.role];
    heading.style.setProperty("--role", roleColours[tensor.role]);
    facts.textContent = [`amax ${short(tensor.amax)}`, `zeros ${percent(tensor.zeros / (tensor.count || 1))}`, `read by ${tensor.passes.join(" and ")}`].join(" · ");
    exponents.setAttribute("aria-label", `Share of the elements of ${tensor.role} of ${tensor.site} by exponent. Arrow keys visit the bars.`);
    values.setAttribute("aria-label", `Sampled elements of ${tensor.role} of ${tensor.site} by value, on a logarithmic axis. Arrow keys visit the bars.`);
    const draw = (id, make) => {
      let stops = [];
      figure(id, (width) => { const made = make(tensor, width); stops = made.stops; return made.chart; }, () => stops);
    };
    if (tensor.exponents.some(([, count]) => count > 0)) draw(exponents.id, exponentChart);
    else figure(exponents.id, () => "No finite element that is not zero.");
    title.textContent = tensor.values ? "by value" + (known(tensor.values.nu) ? ", and the Student-t that fits: " + nuText(tensor.values.nu) + (tensor.values.nu >= 999 ? ", as of a normal" : "") : "") : "";
    if (tensor.values) draw(values.id, valueChart);
    else figure(values.id, () => null);
  });
});
