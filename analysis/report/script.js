
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// The browser may refuse storage, for example to pages opened from a file.
function storageItem(storage, key, value) {
  try {
    if (value === undefined) return window[storage].getItem(key);
    if (value === null) window[storage].removeItem(key);
    else window[storage].setItem(key, value);
  } catch { /* nothing is stored */ }
  return null;
}

function chooseTheme() {
  const button = document.getElementById("theme"), names = { "": "as the system", light: "light", dark: "dark" };
  const show = theme => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.querySelector("span").textContent = names[theme];
  };
  const stored = storageItem("localStorage", "roadmap-theme");
  let theme = stored in names ? stored : "";
  show(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    const order = Object.keys(names);
    theme = order[(order.indexOf(theme) + 1) % order.length];
    show(theme);
    storageItem("localStorage", "roadmap-theme", theme);
  });
}

// Sorts numbers by size, other columns as text; empty cells come last.
function sortTable(table, column, direction) {
  const body = table.tBodies[0], rows = [...body.rows], heads = table.tHead.rows[0].cells;
  const values = new Map(rows.map(row => [row, row.cells[column].dataset.value]));
  const numbers = rows.every(row => values.get(row) === "" || Number.isFinite(Number(values.get(row))));
  const sign = direction === "descending" ? -1 : 1;
  rows.sort((one, other) => {
    const a = values.get(one), b = values.get(other);
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numbers ? a - b : a.localeCompare(b));
  });
  body.append(...rows);
  [...heads].forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", direction);
    else head.removeAttribute("aria-sort");
  });
}

function makeSortable(table) {
  all(".sort", table).forEach((button, column) => button.addEventListener("click", () => {
    const ascending = button.parentElement.getAttribute("aria-sort") === "ascending";
    sortTable(table, column, ascending ? "descending" : "ascending");
  }));
}

function makeFilter(filters) {
  const table = document.getElementById(filters.dataset.table);
  const text = filters.querySelector("input"), kind = filters.querySelector("select");
  const output = filters.querySelector("output"), noun = output.textContent.split(" ").at(-1);
  const apply = () => {
    const wanted = text.value.trim().toLowerCase(), [key, ...rest] = kind.value.split(":");
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(wanted) && (!key || row.dataset[key] === rest.join(":"));
      row.hidden = !fits;
    }
    output.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} ${noun}`;
  };
  text.addEventListener("input", apply);
  kind.addEventListener("change", apply);
}

// Shows the facts of the element under the pointer or with the focus; Escape hides them.
function showFacts() {
  const tip = document.getElementById("tip");
  let shown = null;
  const hide = () => {
    tip.hidden = true;
    shown = null;
  };
  const show = target => {
    hide();
    shown = target;
    Object.assign(tip.style, { left: 0, top: 0 }); // where its size is not limited
    tip.replaceChildren(...target.querySelector(".facts").cloneNode(true).childNodes);
    tip.hidden = false;
    const place = target.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.min(place.left + place.width / 3, document.documentElement.clientWidth - size.width - 8);
    const below = place.bottom + 6 + size.height < innerHeight;
    tip.style.left = `${scrollX + Math.max(8, left)}px`;
    tip.style.top = `${scrollY + (below ? place.bottom + 6 : Math.max(8, place.top - size.height - 6))}px`;
  };
  for (const facts of all(".facts")) {
    const target = facts.parentElement;
    target.addEventListener("pointerenter", () => show(target));
    target.addEventListener("focus", () => show(target));
    target.addEventListener("blur", hide);
    target.addEventListener("pointerleave", () => {
      const focused = document.activeElement;
      if (focused?.querySelector?.(":scope > .facts")) show(focused);
      else hide();
    });
  }
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
  addEventListener("resize", () => { if (shown) show(shown); });
}

// The map of pairs is one stop of the Tab key; arrow keys move within it.
function walkPairs(table) {
  const cells = all(".pair > span", table);
  cells.forEach((cell, i) => { cell.tabIndex = i ? -1 : 0; });
  table.addEventListener("keydown", event => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const cell = event.target.closest(".pair");
    if (!moves || !cell) return;
    const row = table.rows[cell.parentElement.rowIndex + moves[0]];
    const next = row?.cells[cell.cellIndex + moves[1]]?.querySelector("span[role=img]");
    event.preventDefault();
    if (!next) return;
    cells.forEach(other => { other.tabIndex = other === next ? 0 : -1; });
    next.focus();
  });
}

function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(candidate => candidate >= rough);
  const values = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) values.push(Number((i * step).toPrecision(12)));
  return values;
}

const MARGINS = { left: 46, right: 18, top: 10, bottom: 34 }; // of the curves, pixels
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "14 4", "4 2 1 2"];

function makeCurves(box) {
  const data = JSON.parse(box.querySelector("script").textContent), plot = box.querySelector(".plot");
  const metric = box.querySelector(".metric"), reach = box.querySelector(".window");
  const epoch = box.querySelector(".epoch"), read = box.querySelector(".filters output");
  const last = Math.max(...data.rungs.map(rung => rung.epochs.at(-1)));
  epoch.max = last;
  epoch.value = last;
  const labels = data.rungs.map((rung, i) => {
    const label = document.createElement("label"), name = document.createElement("span"), check = document.createElement("input");
    const swatch = svg("svg", { "aria-hidden": "true" }), value = document.createElement("output");
    Object.assign(check, { type: "checkbox", checked: true, id: `${box.dataset.name}-curve-${rung.name}`, autocomplete: "off" });
    swatch.append(svg("line", { class: `curve group-${rung.colour}`, x1: 0, x2: 30, y1: 5, y2: 5, "stroke-dasharray": DASHES[rung.dash % DASHES.length] }));
    name.textContent = rung.name;
    label.append(check, swatch, name, value);
    check.addEventListener("change", draw);
    const stress = on => () => all(".curve", plot).forEach(line => line.classList.toggle("strong", on && line.dataset.rung === String(i)));
    label.addEventListener("pointerenter", stress(true));
    label.addEventListener("pointerleave", stress(false));
    check.addEventListener("focus", stress(true));
    check.addEventListener("blur", stress(false));
    return { label, check, value };
  });
  box.querySelector(".names").append(...labels.map(entry => entry.label));
  let x = null, first = 1;

  function readOff() {
    const at = Number(epoch.value);
    read.textContent = at;
    data.rungs.forEach((rung, i) => {
      const index = rung.epochs.findIndex(epoch => epoch >= at), place = index < 0 ? rung.epochs.length - 1 : index;
      const value = rung.values[metric.value][place], shown = value?.toFixed(metric.value.includes("loss") ? 3 : 2) ?? "–";
      labels[i].value.textContent = index < 0 ? `${shown} at ${rung.epochs[place]}` : shown;
    });
    const cursor = plot.querySelector(".cursor");
    if (cursor) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(at));
  }

  function draw() {
    const width = plot.clientWidth, height = plot.clientHeight;
    const { left, right, top, bottom } = MARGINS;
    first = Math.max(1, Math.floor(last * Number(reach.value)));
    epoch.min = first;
    const lines = data.rungs.map((rung, i) => ({
      i, rung, points: labels[i].check.checked
        ? rung.epochs.map((at, k) => [at, rung.values[metric.value][k]]).filter(([at, value]) => at >= first && value !== null)
        : [],
    })).filter(line => line.points.length);
    const values = lines.flatMap(line => line.points.map(point => point[1]));
    let low = values.length ? Math.min(...values) : 0, high = values.length ? Math.max(...values) : 1;
    const room = (high - low || Math.abs(high) || 1) * 0.04;
    low -= room; high += room;
    const span = Math.max(last - first, 1);
    x = at => left + (width - left - right) * (last === first ? 0.5 : (at - first) / span);
    const y = value => top + (height - top - bottom) * (high - value) / (high - low);
    plot.replaceChildren();
    for (const tick of ticks(low, high, 6)) {
      plot.append(svg("line", { class: "frame", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      plot.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    }
    for (const tick of ticks(first, first + span, Math.max(2, width / 90)).filter(value => Number.isInteger(value) && value <= last)) {
      plot.append(svg("text", { x: x(tick), y: height - 18, "text-anchor": "middle" }, String(tick)));
    }
    plot.append(svg("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, "epoch"));
    for (const { i, rung, points } of lines) {
      const at = points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`);
      // A single epoch is a dot, not a line.
      const shape = points.length > 1 ? svg("polyline", { points: at.join(" ") }) : svg("circle", { cx: x(points[0][0]), cy: y(points[0][1]), r: 3 });
      shape.setAttribute("class", `curve group-${rung.colour}`);
      shape.setAttribute("stroke-dasharray", DASHES[rung.dash % DASHES.length]);
      shape.dataset.rung = i;
      plot.append(shape);
    }
    plot.append(svg("line", { class: "cursor", x1: 0, x2: 0, y1: top, y2: height - bottom }));
    readOff();
  }

  plot.addEventListener("pointermove", event => {
    const place = plot.getBoundingClientRect(), width = place.width - MARGINS.left - MARGINS.right;
    epoch.value = Math.round(first + (event.clientX - place.left - MARGINS.left) / width * (last - first));
    readOff();
  });
  epoch.addEventListener("input", readOff);
  for (const control of [metric, reach]) control.addEventListener("change", draw);
  for (const [name, on] of [["all", true], ["none", false]]) {
    box.querySelector(`.${name}`).addEventListener("click", () => {
      for (const { check } of labels) check.checked = on;
      draw();
    });
  }
  box.hidden = false;
  new ResizeObserver(draw).observe(plot);
}

// A link to a design opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

const PLACE = `roadmap-place-${location.pathname}`;

// Saves the reader's position and choices before a reload; takePlace restores them.
function keepPlace() {
  const fields = all("input[id], select[id]").map(field => [field.id, field.type === "checkbox" ? field.checked : field.value]);
  const sorted = all("th[aria-sort]").map(head => [head.closest("table").id, head.cellIndex, head.getAttribute("aria-sort")]);
  const open = all("details[open]").map(details => details.id);
  storageItem("sessionStorage", PLACE, JSON.stringify({ fields, sorted, open, focus: document.activeElement?.id, scroll: scrollY }));
}

function takePlace() {
  const stored = storageItem("sessionStorage", PLACE);
  if (!stored) return;
  storageItem("sessionStorage", PLACE, null);
  const { fields, sorted, open, focus, scroll } = JSON.parse(stored);
  for (const [id, value] of fields) {
    const field = document.getElementById(id);
    if (!field) continue;
    if (field.type === "checkbox") field.checked = value;
    else if (field.type !== "range") field.value = value;
    field.dispatchEvent(new Event("input"));
    field.dispatchEvent(new Event("change"));
  }
  for (const [id, column, direction] of sorted) {
    const table = document.getElementById(id);
    if (table) sortTable(table, column, direction);
  }
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  scrollTo({ top: scroll, behavior: "instant" });
}

// A served page polls for a newer version.
function stayLive() {
  const version = document.documentElement.dataset.version, live = document.getElementById("live");
  if (!version || !location.protocol.startsWith("http")) return;
  live.hidden = false;
  live.textContent = "Refreshes while runs continue.";
  const ask = async () => {
    try {
      const answer = await fetch("/version", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      if (await answer.text() !== version) {
        keepPlace();
        location.reload();
        return;
      }
      if (live.textContent.startsWith("No")) live.textContent = "Refreshes while runs continue.";
    } catch {
      live.textContent = "No longer served: this is the last version.";
    }
    setTimeout(ask, 2000);
  };
  setTimeout(ask, 2000);
}

chooseTheme();
all("table.grid").forEach(makeSortable);
all(".filters[data-table]").forEach(makeFilter);
showFacts();
all("table.pairs").forEach(walkPairs);
all(".curves").forEach(makeCurves);
addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
takePlace();
stayLive();
