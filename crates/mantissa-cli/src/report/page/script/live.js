"use strict";
// Follows runs that go on: asks the server for news and draws them in place.

const INTERVAL = 2000;

function status(state, words) {
  const host = element("live");
  host.hidden = false;
  host.dataset.state = state;
  host.textContent = words;
}

function take(update) {
  report = update.report;
  element("results-table").innerHTML = update.results;
  element("decision-tables").innerHTML = update.decisions;
  element("created").textContent = new Date(report.created).toLocaleString();
  takeTables();
  const [x, y] = [scrollX, scrollY];
  draw();
  scrollTo(x, y);
}

async function ask() {
  try {
    const answer = await fetch("news?since=" + report.created, { cache: "no-store" });
    if (answer.status === 200) take(await answer.json());
    else if (answer.status !== 204) throw new Error((await answer.text()).trim());
    status("on", report.runs.every((run) => run.state !== "unfinished") ? "live, all runs ended" : "live");
  } catch (error) {
    status("off", error instanceof TypeError ? "the server has ended" : error.message);
  }
  setTimeout(ask, document.hidden ? 5 * INTERVAL : INTERVAL);
}

status("on", "live");
setTimeout(ask, INTERVAL);
