// What the chosen run came to, and what its folder does not hold.

function tile(name, value, note) {
  return node("div", { class: "tile" }, node("dt", {}, name), node("dd", {}, value, note ? node("small", {}, note) : null));
}

part(() => {
  const run = theRun();
  const { outcome, history } = run;
  const planned = run.planned_steps;
  const last = history.losses.findLast((loss) => loss !== null);
  const timing = run.timing?.seconds ? d3.sum(Object.values(run.timing.seconds)) / (run.timing.steps || 1) : null;
  const tiles = [
    outcome.final_loss !== null
      ? tile("Final loss", outcome.final_loss.toFixed(4), outcome.loss_floor !== null ? short(outcome.final_loss - outcome.loss_floor) + " above the floor" : null)
      : tile("Training loss", last === undefined ? "–" : last.toFixed(4), "last logged"),
    tile("Steps", String(history.end), planned ? "of " + planned : null),
    tile("Skipped steps", String(outcome.skipped_steps ?? 0), history.end ? percent((outcome.skipped_steps ?? 0) / history.end) : null),
    tile("Bytes per element", known(run.bytes_per_element) ? run.bytes_per_element.toFixed(2) : "–", "of all operands, scales included"),
    tile("Peak memory", bytes(run.memory?.peak ?? null), known(run.memory?.peak) ? "measured" : run.state === "unfinished" ? "known at the end" : "not measured"),
    tile("Time per step", milliseconds(timing), null),
  ];
  element("tiles").replaceChildren(...tiles);
  const states = { finished: "finished", stopped: "stopped: one step after the other was skipped", unfinished: planned ? `at step ${history.end} of ${planned}` : "not finished" };
  const state = element("run-state");
  state.textContent = outcome.diverged ? "diverged" : states[run.state];
  state.dataset.state = outcome.diverged ? "diverged" : run.state;
  const facts = run.facts.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value)));
  element("run-facts").replaceChildren(...facts, node("div", {}, node("dt", {}, "folder"), node("dd", {}, run.folder)));
  element("run-facts").hidden = report.runs.length < 2;
  element("run-name").textContent = run.name;

  const items = [
    ...run.problems.map((problem) => node("li", { class: "problem" }, problem)),
    ...run.missing.map((missing) => node("li", {}, node("code", {}, missing.file), " (" + missing.shows + "): ", ...code(missing.remedy))),
  ];
  element("missing-list").replaceChildren(...items);
  element("missing").hidden = items.length === 0;
  if (run.problems.length) element("missing").open = true;
  choice("run", "run", report.runs.map((run, i) => [String(i), run.name]));
  element("run-choice").hidden = report.runs.length < 2;
});

// Words between backquotes as code.
const code = (text) => text.split("`").map((piece, i) => i % 2 ? node("code", {}, piece) : piece);
