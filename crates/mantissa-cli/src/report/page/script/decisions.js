// What was changed while the run trained, over its steps; and the decisions of its plan.

const numericsText = (byRole) => Object.entries(byRole ?? {}).map(([role, name]) => role + " " + name).join(", ");

function changeText(change) {
  const [from, to] = [numericsText(change.from), numericsText(change.to)];
  return [
    `step ${change.step}: ${kindOf(change).name}` + (known(change.to_step) ? ` to step ${change.to_step}` : ""),
    change.site ? change.site + (change.pass ? " · " + change.pass : "") : null,
    from ? "from " + from : null, to ? "to " + to : null, change.reason,
  ].filter(Boolean).map((line) => wrap(line, 70)).join("\n");
}

part(() => {
  const run = theRun();
  const changes = run.changes.filter((change) => inRange(change.step)).map((change) => ({ ...change, place: change.site ? change.site + (change.pass ? " · " + change.pass : "") : "whole plan", text: changeText(change) }));
  const used = [...new Set(changes.map((change) => change.kind))];
  element("changes-legend").replaceChildren(...used.map((kind) => {
    const { symbol, name, colour, rotate } = kindOf({ kind });
    const shape = { triangle: d3.symbolTriangle, times: d3.symbolTimes, diamond: d3.symbolDiamond, circle: d3.symbolCircle }[symbol];
    return node("span", {}, svg("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, svg("path", { d: d3.symbol(shape, 60)(), style: `fill:${symbol === "times" ? "none" : colour};stroke:${colour};stroke-width:1.5`, transform: `rotate(${rotate ?? 0})` })), " ", name);
  }));
  figure("changes-chart", (width) => {
    if (!run.changes.length) return run.history.end ? "The plan was not changed while this run trained." : "No step is logged yet.";
    if (!changes.length) return "The plan was not changed in these steps.";
    const narrow = width < 640;
    const places = [...new Set(changes.map((change) => change.place))];
    const back = changes.filter((change) => known(change.to_step));
    return makePlot({
      width, height: 60 + 26 * places.length, marginLeft: narrow ? 130 : 330, marginRight: 14,
      x: { label: "step", tickFormat: "d", domain: [chosen.from ?? 0, Math.max(chosen.to ?? run.history.end, 1)], grid: true },
      y: { label: null, domain: places, tickFormat: (place) => ending(place, narrow ? 18 : 50), tickSize: 0, type: "point", padding: 0.6 },
      symbol: { type: "identity" },
      marks: [
        Plot.ruleY(places, { stroke: "var(--rule)" }),
        Plot.arrow(back, { x1: "step", x2: "to_step", y: "place", stroke: "var(--warning)", bend: -18, headLength: 7 }),
        Plot.dot(changes, { x: "step", y: "place", symbol: (change) => kindOf(change).symbol, rotate: (change) => kindOf(change).rotate ?? 0, fill: (change) => kindOf(change).colour, stroke: (change) => kindOf(change).colour, strokeWidth: 2, r: 5.5 }),
        Plot.tip(changes, Plot.pointer({ x: "step", y: "place", title: "text", maxRadius: 30, ...tipStyle })),
      ],
    });
  }, (plot) => changes.map((change) => ({ x: plot.scale("x").apply(change.step), y: plot.scale("y").apply(change.place), text: change.text })),
  changes.length ? () => ({
    headings: ["step", "decision", "site", "pass", "from", "to", "why"],
    rows: changes.map((change) => [String(change.step), kindOf(change).name + (known(change.to_step) ? " to step " + change.to_step : ""), change.site ?? null, change.pass ?? null, numericsText(change.from), numericsText(change.to), change.reason]),
  }) : null);
});
