"use strict";
// Keeps what the node has told, shows it, and asks it to halt. Every text goes in as text, never as markup.
(() => {
  const MOST = 400, SHOWN = 30, NEAR = 0.25;
  const POINT = ["number", "ts", "price", "exposure", "equity", "low", "high", "target", "quantity", "reason", "action", "filled"];
  const el = (id) => document.getElementById(id);
  const state = { run: {}, words: {}, names: {}, events: [], health: null, halt: { reason: "", text: "" }, chosen: null, drawn: 0, heard: 0 };
  let token = takeToken();

  function takeToken() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
      sessionStorage.setItem("token", given);
      history.replaceState(null, "", location.pathname);
    }
    return given || sessionStorage.getItem("token") || "";
  }

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  function fixed(value, digits = 2, signed = false) {
    if (!isNumber(value)) return "–";
    const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const none = !/[1-9]/.test(text);
    return (value < 0 && !none ? "−" : signed && !none ? "+" : "") + text;
  }
  const percent = (value, digits = 1, signed = false) => (isNumber(value) ? `${fixed(100 * value, digits, signed)} %` : "–");
  const brief = (value) => (isNumber(value) ? value.toLocaleString("en-US", { maximumSignificantDigits: 10 }).replace("-", "−") : "–");
  const decimals = (value) => (isNumber(value) ? value.toLocaleString("en-US", { useGrouping: false, maximumSignificantDigits: 12 }).split(".")[1]?.length || 0 : 0);
  const time = (ns, from = 0) => new Date(ns / 1e6).toISOString().slice(from, 16).replace("T", " ");
  const words = (code) => state.words[code] || code.replaceAll("_", " ");

  function put(id, text, kind = "") {
    const found = el(id);
    if (found.textContent !== text) found.textContent = text;
    found.className = kind;
  }

  function node(name, text = "", kind = "") {
    const found = document.createElement(name);
    if (text !== "") found.textContent = text;
    if (kind) found.className = kind;
    return found;
  }

  function take(message) {
    state.run = message.run;
    if (Object.keys(message.words).length) Object.assign(state, { words: message.words, names: {}, events: [] }); // all of it, from the start
    state.health = message.health;
    state.halt = message.halt;
    for (const [name, told] of Object.entries(message.instruments)) {
      const kept = state.names[name] || (state.names[name] = { points: [] });
      kept.latest = told.latest;
      kept.counts = told.counts;
      for (const row of told.points) {
        const point = Object.fromEntries(POINT.map((key, at) => [key, row[at]]));
        point.at = point.ts / 1e6;
        for (const key of ["price", "low", "high", "equity"]) if (!isNumber(point[key])) point[key] = NaN;
        const last = kept.points[kept.points.length - 1];
        if (last && last.ts === point.ts && last.number < point.number) kept.points.pop(); // it was filled, or looked at again
        if (!kept.points.length || kept.points[kept.points.length - 1].number < point.number) kept.points.push(point);
      }
      kept.points.splice(0, Math.max(0, kept.points.length - MOST));
    }
    for (const [number, event] of message.events) {
      if (!state.events.length || state.events[0].number < number) state.events.unshift({ number, ...event });
    }
    state.events.length = Math.min(state.events.length, 60);
    if (!state.chosen || !state.names[state.chosen]) state.chosen = Object.keys(state.names)[0] || null;
    state.heard = Date.now();
    show();
  }

  function show() {
    const { run } = state;
    put("run", [run.mode, run.venue, run.trader, run.timeframe && `${run.timeframe} bars`].filter(Boolean).join(" · "), "kicker");
    put("title", state.chosen || run.name || "LSTM strategy");
    document.title = `${state.chosen || "LSTM strategy"} · ${run.mode || ""}`;
    showNames();
    showEvents();
    const kept = state.names[state.chosen];
    showBanner(kept ? kept.latest : { parity: "none", problem: "" });
    if (!kept) return showHealth(null);
    showAccount(kept.latest);
    showLimits(kept.latest);
    showHealth(kept.latest);
    showCoverage(kept.latest);
    showDecisions(kept.points);
    showReasons(kept.counts);
    draw(kept);
    el("price").dataset.bars = String(state.drawn += 1);
  }

  // As many decimals as any of these prices has: the tick's, with hardly an exception.
  const finest = (points) => Math.max(0, ...points.map((point) => decimals(point.price)));

  function draw(kept) {
    const points = kept.points.slice(-160), { latest } = kept;
    el("price-note").textContent = latest.horizons.length
      ? `Closes; behind them the ${Math.round(100 * state.run.interval)} % interval said one bar before. Fan: ${latest.horizons.join(", ")} bars ahead. ▲ bought, ▼ sold.`
      : "Closes. There is no forecast yet.";
    Chart.drawPrice(el("price"), points, latest, state.run.bar_s * 1000, finest(points));
    Chart.drawEquity(el("equity-chart"), points);
    el("equity-note").textContent = `Marked to market at the last ${points.length} closes, net of costs.`;
  }

  function showNames() {
    const names = Object.keys(state.names), nav = el("names");
    nav.hidden = names.length < 2;
    if (nav.children.length !== names.length) {
      nav.replaceChildren(...names.map((name) => {
        const button = node("button", name);
        button.type = "button";
        button.addEventListener("click", () => { state.chosen = name; show(); });
        return button;
      }));
    }
    for (const button of nav.children) button.setAttribute("aria-pressed", String(button.textContent === state.chosen));
  }

  function showAccount(latest) {
    const start = latest.equity - latest.day_pnl, tone = (value) => (value > 0 ? "good" : value < 0 ? "bad" : "");
    put("equity", fixed(latest.equity));
    put("currency", state.run.currency || "", "unit");
    put("day", fixed(latest.day_pnl, 2, true), tone(latest.day_pnl));
    put("day-part", percent(latest.day_pnl / start, 2, true), "unit");
    put("drawdown", percent(isNumber(latest.drawdown) ? -latest.drawdown : NaN, 2));
    put("position", brief(latest.position));
    put("side", latest.position > 0 ? "long" : latest.position < 0 ? "short" : "flat", "unit");
    put("exposure", percent(latest.exposure));
    put("target", `target ${percent(latest.target)}`, "unit");
    put("gross", `${percent(latest.gross, 0)} / ${percent(latest.net, 0)}`);
  }

  function amount(value, unit) {
    if (!isNumber(value)) return "–";
    switch (unit) {
      case "equity": case "move": case "a year": return percent(value);
      case "quote": return fixed(value, 0);
      case "hours": return `${fixed(value, 1)} h`;
      case "σ": return `${fixed(value, 1)} σ`;
      case "std": return `${fixed(value, 1)} sd`;
      default: return fixed(value, 0);
    }
  }

  function showLimits(latest) {
    const rows = latest.headroom.map((one) => {
      const row = node("li"), meter = node("div", "", "meter"), used = node("i");
      const part = isNumber(one.room) ? 1 - one.room : 0;
      used.style.width = `${(100 * part).toFixed(1)}%`;
      if (isNumber(one.room) && one.room <= 0) meter.classList.add("full");
      else if (isNumber(one.room) && one.room < NEAR) meter.classList.add("near");
      meter.append(used);
      row.title = isNumber(one.room) ? `${percent(one.room, 0)} left` : "not known yet";
      row.append(node("span", one.limit.replaceAll("_", " ")), meter, node("span", `${amount(one.used, one.unit)} of ${amount(one.most, one.unit)}`, "figures"));
      return row;
    });
    el("limits").replaceChildren(...rows);
  }

  const PARITY = { proved: "proved: live and offline agree", unproved: "not proved: no new risk", none: "nothing to prove" };
  function showHealth(latest) {
    const rows = [];
    const { health } = state;
    if (health) {
      rows.push(["Market data", health.market_data ? "connected" : "NOT connected"]);
      rows.push(["Account", health.execution ? "connected" : "NOT connected"]);
      rows.push(["Bars", health.collecting ? "earlier ones are on their way" : "complete"]);
    }
    if (latest) {
      rows.push(["Last bar", time(latest.ts_close)]);
      rows.push(["Bar lag", isNumber(latest.lag_s) ? `${fixed(latest.lag_s, 3)} s` : "–"]);
      rows.push(["Inference", isNumber(latest.inference_s) ? `${fixed(1e6 * latest.inference_s, 0)} µs` : "–"]);
      rows.push(["Parity", PARITY[latest.parity] + (latest.problem ? ` (${latest.problem})` : "")]);
      rows.push(["Model", latest.model]);
    }
    el("health").replaceChildren(...rows.flatMap(([name, text]) => [node("dt", name), node("dd", text, /NOT|not proved/.test(text) ? "bad" : "")]));
  }

  function showCoverage(latest) {
    const horizons = [...new Set(latest.coverage.map((one) => one.horizon))], intervals = [...new Set(latest.coverage.map((one) => one.interval))];
    const cells = (name, texts, kind = "td") => [name, ...texts].map((text) => node(kind, text));
    const find = (horizon, interval) => latest.coverage.find((one) => one.horizon === horizon && one.interval === interval);
    const rows = intervals.map((interval) => cells(percent(interval, 0), horizons.map((horizon) => percent(find(horizon, interval)?.share))));
    if (horizons.length) rows.push(cells("outcomes", horizons.map((horizon) => fixed(Math.max(...latest.coverage.filter((one) => one.horizon === horizon).map((one) => one.outcomes)), 0))));
    const table = el("coverage"), head = horizons.length ? cells("Interval", horizons.map((horizon) => `${horizon} bar${horizon > 1 ? "s" : ""}`), "th") : [];
    table.tHead.rows[0].replaceChildren(...head);
    table.tBodies[0].replaceChildren(...rows.map((row) => { const made = node("tr"); made.append(...row); return made; }));
  }

  function showDecisions(points) {
    const digits = finest(points);
    const rows = points.slice(-SHOWN).reverse().map((point) => {
      const row = node("tr", "", point.quantity || point.filled ? "traded" : ""), why = node("td", words(point.reason));
      why.append(node("small", point.reason));
      const moved = Math.abs(point.target - point.exposure) < 5e-5 ? percent(point.exposure) : `${percent(point.exposure)} → ${percent(point.target)}`;
      const order = point.quantity ? `${point.quantity > 0 ? "buy" : "sell"} ${brief(Math.abs(point.quantity))}` : point.filled ? `${point.filled > 0 ? "bought" : "sold"} ${brief(Math.abs(point.filled))}` : point.action === "held" ? "" : words(point.action);
      row.append(node("td", time(point.ts, 5)), node("td", fixed(point.price, digits)), node("td", moved), why, node("td", order));
      return row;
    });
    el("decisions").tBodies[0].replaceChildren(...rows);
  }

  function showReasons(counts) {
    const all = Object.values(counts).reduce((sum, one) => sum + one, 0);
    const rows = Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([reason, count]) => {
      const row = node("tr");
      row.append(node("td", words(reason)), node("td", fixed(count, 0)), node("td", percent(count / all, 0)));
      return row;
    });
    el("reasons").tBodies[0].replaceChildren(...rows);
  }

  function showEvents() {
    const rows = state.events.map((event) => {
      const row = node("li", "", ["halt", "ordered", "trouble", "refusal"].includes(event.kind) ? "serious" : ""), when = node("time", time(event.ts, 5));
      row.append(when, node("b", event.kind), ` ${event.instrument ? `${event.instrument} ` : ""}${event.text}`);
      return row;
    });
    el("events").replaceChildren(...(rows.length ? rows : [node("li", "Nothing yet.")]));
  }

  function showBanner(latest) {
    const banner = el("banner"), { reason, text } = state.halt, halted = Boolean(reason), ordered = reason === "halt_ordered";
    if (ordered || state.ordered) { // until somebody has resumed
      put("halt", ordered ? "Halted" : "Flatten and halt");
      el("halt").disabled = ordered;
    }
    state.ordered = ordered;
    banner.hidden = !halted && latest.parity !== "unproved";
    banner.className = halted ? "banner" : "banner mild";
    banner.textContent = halted ? `Halted: ${words(reason)}${text ? ` (${text})` : ""}.` : `Parity is not proved: no new risk is taken. ${latest.problem}`;
  }

  function listen() {
    const source = new EventSource("/events");
    source.addEventListener("message", (event) => {
      put("live", "live", "state on");
      take(JSON.parse(event.data));
    });
    source.addEventListener("end", () => { source.close(); put("live", "the node has ended", "state off"); });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) put("live", "reconnecting", "state off");
    });
  }

  setInterval(() => {
    const silent = (Date.now() - state.heard) / 1000;
    if (state.heard && silent > 25 && el("live").textContent === "live") put("live", `silent for ${fixed(silent, 0)} s`, "state off");
  }, 5000);

  async function halt() {
    const given = token || el("token").value.trim();
    el("confirm").disabled = true;
    el("ask-error").textContent = "";
    try {
      const reply = await fetch("/halt", { method: "POST", headers: { "X-LSTM-Strategy-Token": given, "Content-Type": "text/plain" }, body: el("reason").value });
      if (reply.ok) {
        token = given;
        sessionStorage.setItem("token", given);
        el("ask").close();
        put("halt", "Halting …");
        el("halt").disabled = true;
      } else {
        const told = await reply.json();
        el("ask-error").textContent = told.error;
        if (reply.status === 403) forget();
      }
    } catch {
      el("ask-error").textContent = "The node does not answer. Send SIGUSR1 to its process, or put a file named KILL into its state folder.";
    }
    el("confirm").disabled = false;
  }

  function forget() {
    token = "";
    sessionStorage.removeItem("token");
    el("token-row").hidden = false;
  }

  el("halt").addEventListener("click", () => {
    el("token-row").hidden = Boolean(token);
    el("ask-error").textContent = "";
    el("ask").showModal();
    el(token ? "reason" : "token").focus();
  });
  el("cancel").addEventListener("click", () => el("ask").close());
  el("confirm").addEventListener("click", halt);
  addEventListener("hashchange", () => { token = takeToken(); });
  addEventListener("resize", () => { if (state.names[state.chosen]) draw(state.names[state.chosen]); });
  listen();
})();
