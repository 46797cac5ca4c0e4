// Charts in places that stay: only what is inside is drawn anew, so that focus and scrolling survive.

let printing = false;
const PAPER_WIDTH = 700;
const widthOf = (host) => Math.max(260, printing ? Math.min(PAPER_WIDTH, host.clientWidth) : host.clientWidth);

const plotDefaults = { style: { background: "transparent", fontSize: "12px", fontFamily: "inherit" }, marginTop: 20, marginBottom: 36 };
const makePlot = (options) => Plot.plot({ ...plotDefaults, ...options });

// Ticks of a logarithmic axis: powers of ten, or between few of them 1, 2 and 5.
function logTicks(low, high, most = 6) {
  const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const inside = (ticks) => ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  const decades = inside(d3.range(from, to + 1).map((power) => +`1e${power}`));
  if (high / low > 60 && decades.length > 1) return decades.filter((_, i) => i % Math.ceil(decades.length / most) === 0);
  return inside(d3.range(from, to + 1).flatMap((power) => (high / low > 15 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 7]).map((digit) => +`${digit}e${power}`))).filter((_, i, all) => i % Math.ceil(all.length / most) === 0);
}

// An axis with exactly these ticks; a logarithmic scale by itself leaves labels out.
const axisY = (ticks, text, label = null) => [Plot.gridY(ticks), Plot.axisY(ticks, { text: (tick) => text(tick), label, tickSize: 0 })];

// Ticks at round numbers of bytes.
function byteTicks(high, most) {
  const size = 2 ** Math.ceil(Math.log2(high / most));
  return d3.range(0, high * 1.0001, size);
}

// `stops(plot)` are the places that arrow keys visit: pixels of the chart, and the words for them.
function figure(id, makeChart, stops, numbersOf) {
  const host = element(id);
  const chart = makeChart(widthOf(host));
  if (chart === null || typeof chart === "string") {
    host.replaceChildren(node("p", { class: "empty" }, chart ?? ""));
    host.removeAttribute("tabindex");
    host.onkeydown = null;
    numbers(host, null);
    return null;
  }
  host.replaceChildren(chart);
  host.tabIndex = 0;
  const places = stops ? stops(chart) : [];
  host.onkeydown = (event) => {
    const last = places.length - 1;
    const at = host.place ?? -1;
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: last }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    host.place = Math.max(0, Math.min(last, next));
    point(chart, places[host.place]);
  };
  host.onblur = () => chart.dispatchEvent(new PointerEvent("pointerleave", { pointerType: "mouse" }));
  numbers(host, numbersOf);
  return chart;
}

// Shows the tip at a place as if the pointer were there, and says it.
function point(chart, place) {
  const box = chart.getBoundingClientRect();
  const scale = box.width / chart.width.baseVal.value;
  chart.dispatchEvent(new PointerEvent("pointermove", {
    pointerType: "mouse", bubbles: true, clientX: box.left + place.x * scale, clientY: box.top + place.y * scale,
  }));
  element("spoken").textContent = place.text.replaceAll("\n", ", ");
}

const tipStyle = { fill: "var(--panel)", stroke: "var(--rule)", textPadding: 9, lineHeight: 1.35, lineWidth: 42, fontSize: 12, pathFilter: "drop-shadow(0 2px 6px rgb(0 0 0 / .18))" };

// The same numbers as a table, for those who do not see the chart or want to copy them.
function numbers(host, numbersOf) {
  let details = host.nextElementSibling?.classList.contains("numbers") ? host.nextElementSibling : null;
  if (!numbersOf) { details?.remove(); return; }
  if (!details) {
    details = node("details", { class: "numbers" }, node("summary", {}, "Numbers"));
    host.after(details);
  }
  const fill = () => {
    details.querySelector(".scroll")?.remove();
    if (!details.open) return;
    const { headings, rows } = numbersOf();
    const row = (tag) => (cells) => node("tr", {}, ...cells.map((cell) => node(tag, tag === "th" ? { scope: "col" } : { class: typeof cell === "number" ? "number" : false }, typeof cell === "number" ? short(cell, 5) : cell ?? "–")));
    details.append(node("div", { class: "scroll", tabindex: 0 }, node("table", { class: "data" }, node("thead", {}, row("th")(headings)), node("tbody", {}, ...rows.map(row("td"))))));
  };
  details.ontoggle = fill;
  fill();
}

const svg = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

function lineSwatch(i) {
  return svg("svg", { class: "swatch", width: 30, height: 10, "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 29, y1: 5, y2: 5, style: "stroke:" + groupColour(i), "stroke-width": 2.5, "stroke-dasharray": groupDash(i) }));
}

const boxSwatch = (colour) => node("span", { class: "box", style: "background:" + colour, "aria-hidden": "true" });

// A choice among words in a `select`, remembered under a name; `shown` tells which there are now.
function choice(id, name, shown) {
  const select = element(id);
  const same = select.options.length === shown.length && shown.every(([value, text], i) => select.options[i].value === value && select.options[i].text === text);
  if (!same) select.replaceChildren(...shown.map(([value, text]) => new Option(text, value)));
  if (!shown.some(([value]) => value === String(chosen[name]))) chosen[name] = shown[0]?.[0] ?? null;
  select.value = String(chosen[name]);
  select.onchange = () => { chosen[name] = select.value; draw(); };
}
