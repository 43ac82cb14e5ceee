"use strict";

// Theme: the system's, until the button says otherwise.

const root = document.documentElement;
const themeButton = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
let paper = false;

function applyTheme() {
  root.dataset.theme = paper ? "light" : (chosen ?? (system.matches ? "dark" : "light"));
  themeButton.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
  for (const plot of drawn.keys()) draw(plot);
}

themeButton.addEventListener("click", () => {
  chosen = root.dataset.theme === "dark" ? "light" : "dark";
  applyTheme();
});
system.addEventListener("change", applyTheme);

// Charts: drawn when they come near the view, painted in the theme's colours. Plotly is run when the first one is: to run it
// took three quarters of the time in which a page opened, and who came for the answer need not wait for it.

const drawn = new Map(); // the charts that were drawn, each with its figure, the backends hidden, its axis types
const finger = matchMedia("(pointer: coarse)");
const PAPER = 680; // pixels of a sheet of A4 between its margins
const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function themed(part, colours, key = "") {
  if (typeof part === "string") return /color$/.test(key) && Object.hasOwn(colours, part) ? colours[part] : part;
  if (Array.isArray(part)) return part.map((one) => themed(one, colours));
  if (part === null || typeof part !== "object") return part;
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, themed(value, colours, name)]));
}

function runPlotly() {
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

function draw(plot) {
  if (!globalThis.Plotly) runPlotly();
  if (!drawn.has(plot)) {
    const figure = JSON.parse(plot.nextElementSibling.textContent);
    drawn.set(plot, { figure, hidden: new Set(), axes: {}, at: null });
  }
  const { figure, hidden, axes } = drawn.get(plot);
  const style = getComputedStyle(root);
  const [ink, muted, raised] = ["--ink", "--muted", "--raised"].map((name) => style.getPropertyValue(name).trim());
  const { data, layout } = themed(figure, { [THEMED.ink]: ink, [THEMED.muted]: muted });
  for (const trace of data) trace.visible = !hidden.has(trace.meta);
  for (const [axis, type] of Object.entries(axes)) {
    const ticks = type === "linear" ? { tickvals: undefined } : {}; // those given are for a logarithmic one
    Object.assign(layout[axis], { type, autorange: true, range: undefined, ...ticks });
  }
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: raised, bordercolor: muted, font: { color: ink } };
  layout.uirevision = JSON.stringify(axes);
  layout.width = paper ? PAPER : undefined;
  layout.dragmode = finger.matches ? false : "zoom"; // a finger that moves over a chart scrolls the page
  Plotly.react(plot, data, layout, config);
}

const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target);
    }
  },
  { rootMargin: "300px" },
);
const plots = [...document.querySelectorAll(".plot")];
addEventListener("load", () => plots.forEach((plot) => near.observe(plot)));

// On paper: all charts, as wide as a sheet, and everything light.

addEventListener("beforeprint", () => {
  paper = true;
  applyTheme();
  plots.forEach(draw);
});
addEventListener("afterprint", () => {
  paper = false;
  applyTheme();
});

// The legend of a chart shows and hides its backends; a button switches its axis.

for (const legend of document.querySelectorAll(".legend")) {
  const plot = legend.parentElement.querySelector(".plot");
  const names = [...legend.querySelectorAll("[data-backend]")];
  const show = (button, shown) => {
    button.setAttribute("aria-pressed", shown);
    drawn.get(plot).hidden[shown ? "delete" : "add"](button.dataset.backend);
  };
  legend.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (!drawn.has(plot)) draw(plot);
    if (button.dataset.backend !== undefined) show(button, button.getAttribute("aria-pressed") === "false");
    else names.forEach((one) => show(one, button.className === "all"));
    draw(plot);
  });
}

for (const button of document.querySelectorAll("button.log")) {
  const plot = button.closest(".chart").querySelector(".plot");
  const axis = `${button.dataset.axis}axis`;
  const first = JSON.parse(plot.nextElementSibling.textContent).layout[axis].type;
  button.setAttribute("aria-pressed", first === "log");
  button.addEventListener("click", () => {
    const log = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", log);
    if (!drawn.has(plot)) draw(plot);
    drawn.get(plot).axes[axis] = log ? "log" : "linear";
    draw(plot);
  });
}

// By keyboard: left and right go along a curve, up and down to the next one; what is there is shown and said.

const said = document.getElementById("said");

function step(plot, key) {
  const state = drawn.get(plot);
  const curves = plot.data.flatMap((trace, number) => (trace.visible && trace.hoverinfo !== "skip" ? [number] : []));
  const length = (curve) => plot.calcdata[curve].length;
  if (!curves.length) return;
  const begun = state.at && curves.includes(state.at.curve);
  const at = begun ? state.at : { curve: curves[0], point: 0 };
  const place = curves.indexOf(at.curve);
  const next = (to) => curves[(to + curves.length) % curves.length];
  if (begun && key === "ArrowRight") at.point += 1;
  if (begun && key === "ArrowLeft") at.point -= 1;
  if (begun && key === "ArrowDown") at.curve = next(place + 1);
  if (begun && key === "ArrowUp") at.curve = next(place - 1);
  at.point = Math.min(Math.max(at.point, 0), length(at.curve) - 1);
  state.at = at;
  const { xaxis = "x", yaxis = "y" } = plot.data[at.curve];
  Plotly.Fx.hover(plot, [{ curveNumber: at.curve, pointNumber: at.point }], xaxis + yaxis);
}

// Plotly draws the label some time later, and sends no event where there was no mouse.
const labels = new MutationObserver(() => {
  const label = document.activeElement.querySelector(".hoverlayer .hovertext");
  if (!label) return;
  const lines = [...label.querySelectorAll("tspan.line")].map((line) => line.textContent);
  said.textContent = lines.join(", ") || label.textContent;
});

for (const plot of plots) {
  plot.addEventListener("focus", () => labels.observe(plot, { childList: true, subtree: true }));
  plot.addEventListener("blur", () => labels.disconnect());
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && drawn.has(plot)) Plotly.Fx.unhover(plot);
    if (!event.key.startsWith("Arrow") || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (!drawn.has(plot)) draw(plot);
    step(plot, event.key);
  });
}

// Tables: sorted by a column, filtered by style and by words, with the runs of a backend behind its row.

function number(text) {
  return text === "" ? NaN : Number.parseFloat(text.replaceAll(",", ""));
}

function sortBy(table, column, descending) {
  const value = (body) => {
    const cell = body.rows[0].cells[column];
    return (cell.querySelector("button")?.lastChild ?? cell).textContent.trim(); // the name, without its marker
  };
  const bodies = [...table.tBodies];
  const numeric = bodies.every((body) => value(body) === "" || !Number.isNaN(number(value(body))));
  bodies.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is missing comes last either way
    const order = numeric ? number(a) - number(b) : a.localeCompare(b);
    return descending ? -order : order;
  });
  table.append(...bodies);
}

for (const controls of document.querySelectorAll(".controls")) {
  const table = document.getElementById(controls.dataset.table);
  const [search, style] = [controls.querySelector("input"), controls.querySelector("select")];
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const body of table.tBodies) {
      const text = body.textContent.toLowerCase();
      body.hidden = !(words.every((word) => text.includes(word)) && (!style.value || body.dataset.style === style.value));
      shown += !body.hidden;
    }
    controls.querySelector("output").textContent = `${shown} of ${table.tBodies.length} shown`;
  };
  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());

  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });

  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr.backend");
    if (!row) return;
    if (!event.target.closest("button") && String(getSelection())) return; // who selects text does not open the row
    const button = row.querySelector("button");
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", open);
    row.nextElementSibling.hidden = !open;
  });
}

applyTheme();
