// Tables that were written with the page: sorting, searching, and which plan's decisions are shown.

const sorted = new Map();

const key = (cell) => cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : +cell.dataset.value;

function sortTable(table) {
  const { column, down } = sorted.get(table.id) ?? {};
  if (column === undefined) return;
  table.querySelectorAll("thead th").forEach((heading, i) => {
    if (i === column) heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  });
  const rows = [...table.tBodies[0].rows].map((row) => [row, key(row.cells[column])]);
  // Undefined values stay last in both directions.
  const missing = (value) => value === "–" || Number.isNaN(value);
  rows.sort(([, a], [, b]) => missing(a) - missing(b) || (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
  table.tBodies[0].append(...rows.map(([row]) => row));
}

function makeSortable(table) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = node("button", { type: "button" }, heading.textContent);
    heading.replaceChildren(button);
    button.onclick = () => {
      const now = sorted.get(table.id);
      sorted.set(table.id, { column, down: now?.column === column && !now.down });
      sortTable(table);
    };
  });
  sortTable(table);
}

// The site of a row is a button that shows its graph and its tensors.
function linkSites(table) {
  for (const row of table.tBodies[0].rows) {
    const cell = row.cells[0];
    const name = cell.textContent;
    const button = node("button", { type: "button", class: "link" }, name);
    button.onclick = () => { chooseSite(name); element("layer").scrollIntoView(); };
    cell.replaceChildren(button);
  }
}

function search() {
  const words = element("decision-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const plan = document.querySelector("#decision-tables .plan:not([hidden])");
  const rows = plan ? [...plan.querySelectorAll("tbody tr")] : [];
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  element("decision-count").textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " decisions";
}

function takeTables() {
  document.querySelectorAll("#result-table, #decision-tables table").forEach(makeSortable);
  document.querySelectorAll("#decision-tables table").forEach(linkSites);
}

part(() => {
  const plan = theRun().plan;
  document.querySelectorAll("#decision-tables .plan").forEach((one) => { one.hidden = +one.dataset.plan !== plan; });
  element("no-plan").hidden = known(plan);
  search();
});
