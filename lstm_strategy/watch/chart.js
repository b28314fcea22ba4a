"use strict";
// Two pictures in SVG: price with the forecast's fan, and equity. They know nothing of the page but an element.
const Chart = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const PAD = { left: 8, right: 76, top: 10, bottom: 24 };

  function make(parent, name, attributes, text) {
    const found = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    if (text !== undefined) found.textContent = text;
    parent.append(found);
    return found;
  }

  function frame(element, label) {
    const width = Math.max(element.clientWidth, 260), height = Math.max(element.clientHeight, 100);
    const svg = document.createElementNS(NS, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    return { svg, width, height };
  }

  const finite = (values) => values.filter((value) => Number.isFinite(value));

  function ticks(low, high, most) {
    const rough = (high - low) / most, base = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * base).find((one) => one >= rough) || 10 * base;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
    return { found, digits: Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9) + (step / base === 2.5 ? 1 : 0))) };
  }

  const number = (value, digits) =>
    value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");

  function scales({ width, height }, xs, ys) {
    let low = Math.min(...ys), high = Math.max(...ys);
    const slack = (high - low) * 0.06 || Math.abs(high) * 0.001 || 1;
    low -= slack; high += slack;
    const first = Math.min(...xs), last = Math.max(...xs), span = last - first || 1;
    return {
      low, high, first, last,
      x: (value) => PAD.left + (value - first) / span * (width - PAD.left - PAD.right),
      y: (value) => PAD.top + (high - value) / (high - low) * (height - PAD.top - PAD.bottom),
    };
  }

  const MINUTE = 6e4, HOUR = 36e5, DAY = 864e5;
  const STEPS = [1, 5, 15, 30].map((one) => one * MINUTE).concat([1, 3, 6, 12].map((one) => one * HOUR), [1, 2, 5, 10, 30, 90, 365].map((one) => one * DAY));

  // ``avoid``: height of a label that stands there already.
  function axes({ svg, width, height }, scale, avoid = NaN) {
    const { found, digits } = ticks(scale.low, scale.high, height > 200 ? 5 : 3);
    for (const value of found) {
      const y = scale.y(value);
      make(svg, "line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y, y2: y });
      if (!(Math.abs(y - avoid) < 15)) make(svg, "text", { x: width - PAD.right + 8, y: y + 4 }, number(value, digits));
    }
    const most = Math.max(2, Math.floor(width / 85)), span = scale.last - scale.first;
    const step = STEPS.find((one) => span / one <= most) || span;
    for (let at = Math.ceil(scale.first / step) * step; at <= scale.last; at += step) {
      const text = new Date(at).toISOString(), x = scale.x(at);
      const anchor = x < 40 ? "start" : x > width - PAD.right - 20 ? "end" : "middle";
      make(svg, "text", { x, y: height - 6, "text-anchor": anchor }, step >= DAY || at % DAY === 0 ? text.slice(5, 10) : text.slice(11, 16));
    }
    return digits;
  }

  const path = (points) => points.map(([x, y], row) => `${row ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const area = (upper, lower) => `${path(upper)}${path(lower.slice().reverse()).replace("M", "L")}Z`;

  // The interval said at each bar stands where its outcome does: at the next one.
  function past(parent, points, scale) {
    let upper = [], lower = [];
    const flush = () => {
      if (upper.length > 1) make(parent, "path", { class: "past", d: area(upper, lower) });
      upper = []; lower = [];
    };
    points.slice(1).forEach((point, row) => {
      const before = points[row];
      if (!Number.isFinite(before.low) || !Number.isFinite(before.high)) { flush(); return; }
      upper.push([scale.x(point.at), scale.y(before.high)]);
      lower.push([scale.x(point.at), scale.y(before.low)]);
    });
    flush();
  }

  function fan(parent, latest, at, barMs, scale) {
    const { levels, quantiles, horizons, price } = latest, pairs = Math.floor(levels.length / 2);
    const spot = (row, column) => [scale.x(at + horizons[row] * barMs), scale.y(price * Math.exp(quantiles[row][column]))];
    const side = (column) => [[scale.x(at), scale.y(price)], ...horizons.map((_, row) => spot(row, column))];
    for (let pair = 0; pair < pairs; pair += 1) {
      make(parent, "path", { class: "fan", d: area(side(levels.length - 1 - pair), side(pair)) });
    }
    const middle = levels.findIndex((level) => Math.abs(level - 0.5) < 1e-6);
    if (middle >= 0) make(parent, "path", { class: "median", d: path(side(middle)) });
  }

  function drawPrice(element, points, latest, barMs, decimals) {
    const area_ = frame(element, "Price of the last bars with the forecast's fan");
    const at = latest.ts_close / 1e6, ahead = latest.horizons.length ? Math.max(...latest.horizons) * barMs : 0;
    const fanned = latest.quantiles.flat().map((value) => latest.price * Math.exp(value));
    const ys = finite([...points.flatMap((point) => [point.price, point.low, point.high]), ...fanned]);
    const scale = scales(area_, [...points.map((point) => point.at), at + ahead], ys);
    const digits = axes(area_, scale, scale.y(latest.price));
    past(area_.svg, points, scale);
    make(area_.svg, "path", { class: "line", d: path(points.filter((point) => Number.isFinite(point.price)).map((point) => [scale.x(point.at), scale.y(point.price)])) });
    if (latest.horizons.length) fan(area_.svg, latest, at, barMs, scale);
    for (const point of points.filter((one) => one.filled)) {
      const x = scale.x(point.at), y = scale.y(point.price), up = point.filled > 0 ? 1 : -1;
      make(area_.svg, "path", { class: up > 0 ? "buy" : "sell", d: `M${x} ${y + up * 4}l-4 ${up * 7}h8Z` });
    }
    make(area_.svg, "text", { class: "now", x: area_.width - PAD.right + 8, y: scale.y(latest.price) + 4 }, number(latest.price, Math.max(digits, decimals)));
    element.replaceChildren(area_.svg);
  }

  function drawEquity(element, points) {
    const known = points.filter((point) => Number.isFinite(point.equity));
    if (!known.length) return;
    const area_ = frame(element, "Equity of the last bars");
    const scale = scales(area_, known.map((point) => point.at), known.map((point) => point.equity));
    const last = known[known.length - 1].equity, digits = axes(area_, scale, scale.y(last));
    make(area_.svg, "text", { class: "now", x: area_.width - PAD.right + 8, y: scale.y(last) + 4 }, number(last, digits));
    const first = scale.y(known[0].equity);
    make(area_.svg, "line", { class: "rule", x1: PAD.left, x2: area_.width - PAD.right, y1: first, y2: first });
    make(area_.svg, "path", { class: "equity", d: path(known.map((point) => [scale.x(point.at), scale.y(point.equity)])) });
    element.replaceChildren(area_.svg);
  }

  return { drawPrice, drawEquity };
})();
