// The loss scale by step, and the steps that were skipped with their causes.

part(() => {
  const run = theRun();
  const { loss_scale: scale, skips, skipped } = run.history;
  const others = report.runs.filter((other) => other !== run && other.history.loss_scale.length && !chosen.hidden.has(report.groups[other.group].name));
  const points = scale.filter(([step]) => inRange(step));
  const shown = skips.filter((skip) => inRange(skip.step)).map((skip) => ({
    ...skip,
    text: [`step ${skip.step} skipped, loss scale ${powerOfTwo(skip.loss_scale)}`, skip.cause, skip.first, skip.parameters.length ? "first gradients: " + skip.parameters.join(", ") : null].filter(Boolean).map((line) => wrap(line, 64)).join("\n"),
  }));
  element("scale-note").textContent = skipped === 0 ? "No step was skipped." : `${skipped} of ${run.history.end} steps were skipped` + (skips.length < skipped ? `; the first ${skips.length} are marked.` : ".");
  figure("scale-chart", (width) => {
    if (!scale.length && !skips.length) return run.history.end ? "This run does not scale its loss." : "No step is logged yet.";
    const rows = points.map(([step, value]) => ({ step, value, text: `step ${step}\nloss scale ${powerOfTwo(value)}` }));
    return makePlot({
      width, height: 250, marginLeft: 52, marginRight: 14, marginTop: 32,
      x: { label: "step", tickFormat: "d" },
      y: { label: "loss scale", type: "log", base: 2, grid: true, nice: true, ticks: 6, tickFormat: powerOfTwo },
      marks: [
        ...others.map((other) => Plot.line(other.history.loss_scale.filter(([step]) => inRange(step)), { x: "0", y: "1", curve: "step-after", stroke: "var(--quiet)", strokeOpacity: 0.35 })),
        Plot.line(rows, { x: "step", y: "value", curve: "step-after", stroke: "var(--accent)", strokeWidth: 2 }),
        Plot.ruleX(shown, { x: "step", stroke: "var(--warning)", strokeOpacity: 0.35 }),
        Plot.dot(shown, { x: "step", y: "loss_scale", symbol: "times", stroke: "var(--warning)", strokeWidth: 2, r: 5 }),
        Plot.tip([...shown, ...rows.filter((row) => !shown.some((skip) => Math.abs(skip.step - row.step) <= 1))], Plot.pointerX({ x: "step", y: (one) => one.value ?? one.loss_scale, title: "text", maxRadius: 40, ...tipStyle })),
      ],
    });
  }, (plot) => shown.map((skip) => ({ x: plot.scale("x").apply(skip.step), y: plot.scale("y").apply(skip.loss_scale), text: skip.text })),
  shown.length ? () => ({
    headings: ["step", "loss scale", "cause", "first operand that was not finite"],
    rows: shown.map((skip) => [String(skip.step), powerOfTwo(skip.loss_scale), skip.cause, skip.first]),
  }) : null);
});

// Lines of at most about so many characters, broken between words.
function wrap(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length > width) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
  }
  return lines.join("\n");
}
