// What is shown, and what draws it. The report may be replaced while the page is open; what was chosen stays.

let report = JSON.parse(element("report-data").textContent);

// The run that has most to tell: the first that measured, or whose plan came from measurements.
function mostTelling() {
  const has = (test) => report.runs.findIndex(test);
  const measured = has((run) => run.measurements && !run.measurements.from_profile);
  const chose = has((run) => report.plans[run.plan]?.sites.some((site) => site.passes.some((decision) => decision.evidence)));
  return Math.max(0, measured >= 0 ? measured : chose);
}

const chosen = { run: mostTelling(), site: null, row: null, hidden: new Set(), from: null, to: null };

const parts = [];
const part = (draw) => parts.push(draw);

function draw() {
  if (chosen.run >= report.runs.length) chosen.run = 0;
  const names = sites();
  if (!names.includes(chosen.site)) chosen.site = names[0] ?? null;
  for (const one of parts) one();
}

const theRun = () => report.runs[chosen.run];
const thePlan = () => report.plans[theRun().plan];
const theTensors = () => report.profiles[theRun().profile] ?? [];

// In the order of the model where it was measured, else in that of the plan.
function sites() {
  const measured = (theRun().measurements?.rows ?? []).map((row) => row.site);
  const planned = (thePlan()?.sites ?? []).map((site) => site.name);
  return [...new Set([...measured, ...planned])];
}

function chooseSite(site) {
  if (!sites().includes(site)) return;
  chosen.site = site;
  draw();
}

const inRange = (step) => (chosen.from === null || step >= chosen.from) && (chosen.to === null || step <= chosen.to);

// Groups are told apart by hue and by dash, past the palette by another pairing of the two.
const dashes = ["", "9 4", "2 3", "9 3 2 3", "5 5", "14 4", "1 4", "12 3 2 3 2 3"];
const groupColour = (i) => "var(--series-" + (i % dashes.length) + ")";
const groupDash = (i) => dashes[(i + Math.floor(i / dashes.length)) % dashes.length];

const lacking = (file) => theRun().missing.find((missing) => missing.file === file);
