"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = window.matchMedia("(max-width: 720px)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// Figures name their colours as CSS variables of the page; Plotly wants plain values.
function coloured(value, style) {
  if (typeof value === "string") {
    return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
  }
  if (Array.isArray(value)) {
    return value.length && typeof value[0] === "object" ? value.map((item) => coloured(item, style)) : value;
  }
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
}

function drawOne(id) {
  const body = getComputedStyle(document.body);
  const { data, layout } = coloured(figures[id], getComputedStyle(document.documentElement));
  layout.font = { ...layout.font, family: body.fontFamily, size: narrow.matches ? 11 : 12 };
  layout.margin = { l: narrow.matches ? 50 : 64, r: narrow.matches ? 10 : 20, t: 8, b: 8 };
  if (narrow.matches) { // two columns, or one where names are long
    const longest = Math.max(0, ...data.map((trace) => (trace.name || "").length));
    layout.legend = { ...layout.legend, entrywidthmode: "fraction", entrywidth: longest > 17 ? 0.97 : 0.48 };
  }
  layout.dragmode = narrow.matches ? false : "zoom"; // a finger on a chart scrolls the page
  if (layout.xaxis.type === "date") layout.xaxis.nticks = narrow.matches ? 5 : 10;
  Plotly.react(`chart-${id}`, data, layout, { responsive: true, displayModeBar: false });
}

function draw() {
  Object.keys(figures).forEach(drawOne);
}
draw();
dark.addEventListener("change", draw);
narrow.addEventListener("change", draw);
