// Controls of the whole page, and the first drawing.

// Light, dark, or as the system has it; where nothing can be remembered, the choice lasts as long as the page.
const themes = ["auto", "light", "dark"];
function setTheme(theme) {
  document.documentElement.style.colorScheme = theme === "auto" ? "" : theme;
  document.documentElement.dataset.theme = theme;
  element("theme").textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[theme];
  try { localStorage.setItem("mantissa-theme", theme); } catch { /* a file without storage */ }
}
let theme = "auto";
try { theme = localStorage.getItem("mantissa-theme") ?? "auto"; } catch { /* a file without storage */ }
setTheme(themes.includes(theme) ? theme : "auto");
element("theme").onclick = () => setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);

for (const end of ["from", "to"]) {
  element("steps-" + end).onchange = (event) => {
    const value = event.target.value.trim();
    chosen[end] = value === "" || !Number.isFinite(+value) ? null : +value;
    draw();
  };
}
element("decision-search").oninput = search;
document.querySelectorAll("form").forEach((form) => { form.onsubmit = (event) => event.preventDefault(); });
element("created").textContent = new Date(report.created).toLocaleString();

takeTables();
draw();

let pending = 0;
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(pending);
  pending = setTimeout(draw, 150);
});
const print = (state) => { if (printing !== state) { printing = state; draw(); } };
matchMedia("print").addEventListener("change", (event) => print(event.matches));
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
