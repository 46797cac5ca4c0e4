// The graph of one product: its three tensors, the numerics they are rounded to in each pass, and the results.

const roleColours = { lhs: "var(--series-1)", rhs: "var(--series-5)", grad: "var(--series-3)" };
const tensorNames = { lhs: ["L", "activations"], rhs: ["R", "weight"], grad: ["G", "gradient of Y"] };
const factorNames = { forward: ["L", "R"], grad_lhs: ["G", "Rᵀ"], grad_rhs: ["Lᵀ", "G"] };
const resultNames = { forward: ["Y", "activations"], grad_lhs: ["dL", "gradient of L"], grad_rhs: ["dR", "gradient of R"] };

function layerGraph(site, width) {
  const [W, H] = [960, 436];
  const graph = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "graph", role: "img", "aria-label": layerWords(site), width: Math.max(620, Math.min(width, 1100)) });
  const text = (x, y, words, attributes = {}) => { const made = svg("text", { x, y, ...attributes }); made.textContent = words; return made; };
  const box = (x, y, w, h, className, style = "") => svg("rect", { x, y, width: w, height: h, rx: 9, class: className, style });
  const edge = (x1, y1, x2, y2, colour, dashed) => svg("path", { d: `M${x1},${y1} C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`, class: "edge", style: "stroke:" + colour, "stroke-dasharray": dashed ? "5 4" : "" });
  const edges = svg("g");
  const boxes = svg("g");
  graph.append(edges, boxes);

  const sourceY = { lhs: 108, rhs: 218, grad: 328 };
  const source = { x: 12, w: 128, h: 56 };
  for (const [role, y] of Object.entries(sourceY)) {
    const [letter, words] = role === "rhs" && site.kind === "matmul" ? ["R", "activations"] : tensorNames[role];
    boxes.append(box(source.x, y - source.h / 2, source.w, source.h, "tensor", "stroke:" + roleColours[role]));
    boxes.append(text(source.x + 16, y + 7, letter, { class: "letter", style: "fill:" + roleColours[role] }));
    boxes.append(text(source.x + 42, y - 3, words, { class: "word" }), text(source.x + 42, y + 14, "f32", { class: "detail" }));
  }
  const pill = { x: 256, w: 232, h: 50 };
  const product = { x: 572, w: 208, h: 96 };
  const result = { x: 846, w: 102, h: 56 };
  site.passes.forEach((decision, p) => {
    const middle = 76 + p * 142;
    const because = decision.evidence;
    decision.operands.forEach((operand, o) => {
      const y = middle + (o === 0 ? -31 : 31);
      const colour = roleColours[operand.role];
      const full = operand.format === "fp32";
      edges.append(edge(source.x + source.w, sourceY[operand.role], pill.x, y, colour));
      edges.append(edge(pill.x + pill.w, y, product.x, middle + (o === 0 ? -18 : 18), colour));
      boxes.append(box(pill.x, y - pill.h / 2, pill.w, pill.h, full ? "pill full" : "pill", "stroke:" + colour));
      boxes.append(text(pill.x + 14, y - 3, operand.numerics, { class: "numerics" }));
      const nu = theTensors().find((tensor) => tensor.site === site.name && tensor.role === operand.role)?.values?.nu;
      const details = [full ? "not quantized" : operand.scaled ? null : "no scale", known(operand.underflow) ? "underflow " + percent(operand.underflow) : null, known(nu) ? nuText(nu) : null].filter(Boolean);
      boxes.append(text(pill.x + 14, y + 15, factorNames[decision.pass][o] + (details.length ? " · " + details.join(" · ") : ""), { class: "detail" }));
    });
    boxes.append(box(product.x, middle - product.h / 2, product.w, product.h, "product"));
    boxes.append(text(product.x + 18, middle - 20, decision.pass, { class: "pass" }));
    boxes.append(text(product.x + 18, middle + 3, passProducts[decision.pass], { class: "formula" }));
    const cost = because && known(because.cost) ? `, cost ${short(because.cost, 2)}` : "";
    boxes.append(text(product.x + 18, middle + 26, because && known(because.backward_error) ? `error ${short(because.backward_error, 2)} of ${short(because.backward_error_bound, 2)}${cost}` : "sums in f32", { class: "detail" }));
    edges.append(edge(product.x + product.w, middle, result.x, middle, "var(--quiet)"));
    const [letter, words] = resultNames[decision.pass];
    boxes.append(box(result.x, middle - result.h / 2, result.w, result.h, "tensor"));
    boxes.append(text(result.x + 14, middle - 1, letter, { class: "letter" }), text(result.x + 14, middle + 16, "f32", { class: "detail" }));
    boxes.append(text(result.x + result.w / 2, middle + result.h / 2 + 16, words, { class: "detail", "text-anchor": "middle" }));
  });
  return graph;
}

const layerWords = (site) => site.name + ": " + site.passes.map((decision) => decision.pass + " multiplies " + decision.operands.map((operand) => operand.role + " in " + operand.numerics).join(" by ")).join("; ");

part(() => {
  choice("site", "site", sites().map((site) => [site, site]));
  element("site").onchange = () => chooseSite(element("site").value);
  element("layer-site").textContent = chosen.site ?? "";
  const host = element("layer-graph");
  const site = thePlan()?.sites.find((one) => one.name === chosen.site);
  const lack = lacking("plan.toml");
  host.replaceChildren(site ? layerGraph(site, widthOf(host)) : node("p", { class: "empty" }, "No plan to draw. ", ...code(lack ? lack.remedy + "." : "")));
});
