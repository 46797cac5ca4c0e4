// What is shown, and what draws it. The report may be replaced while the page is open; what was chosen stays.

let report = JSON.parse(element("report-data").textContent);

const chosen = { run: 0, site: null, row: null, hidden: new Set(), from: null, to: null };

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

function sites() {
  const planned = (thePlan()?.sites ?? []).map((site) => site.name);
  return planned.length ? planned : [...new Set((theRun().measurements?.rows ?? []).map((row) => row.site))];
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
