// Keeps a page's changing part fresh: asks for it every few seconds with its ETag and changes only what differs, so
// that focus, scroll positions, open details and the chosen sort order stay. Without this script the page still reads.
"use strict";

const live = document.querySelector("[data-live]");
const banner = document.getElementById("connection");
const LONGEST_WAIT = 30;
let etag = null;
let failures = 0;
let timer = null;
let asking = null;

function ask() {
  clearTimeout(timer);
  if (!live || document.hidden || asking) return;
  asking = refresh().finally(() => {
    asking = null;
    banner.hidden = failures === 0;
    schedule();
  });
}

function schedule() {
  clearTimeout(timer);
  if (document.hidden) return;
  const period = Number(live.dataset.seconds) || 2;
  const settled = live.querySelector("[data-final]") ? 5 : 1;
  timer = setTimeout(ask, 1000 * Math.min(LONGEST_WAIT, period * settled * 2 ** Math.min(failures, 4)));
}

async function refresh() {
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch(live.dataset.live, { headers, cache: "no-store", signal: AbortSignal.timeout(15000) });
    const text = await answer.text();
    if (answer.status === 200) {
      etag = answer.headers.get("ETag");
      const next = document.createElement("div");
      next.innerHTML = text;
      morphChildren(live, next);
      settle();
    } else if (answer.status !== 304) {
      throw new Error("status " + answer.status);
    }
    failures = 0;
  } catch {
    failures += 1;
  }
}

// Make `node` like `wanted`, keeping every element that can be kept.
function morph(node, wanted) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  if (node.nodeType !== Node.ELEMENT_NODE || node.isEqualNode(wanted)) return;
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && !(node.localName === "details" && name === "open")) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.localName === "details" && name === "open") continue;
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  morphChildren(node, wanted);
}

function morphChildren(node, wanted) {
  const keyed = new Map();
  for (const child of node.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let place = node.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = next.nodeType === Node.ELEMENT_NODE && next.dataset.key;
    let match = key ? keyed.get(key) : place;
    if (!key && match && (match.nodeName !== next.nodeName || (match.dataset && match.dataset.key))) match = null;
    if (!match) {
      node.insertBefore(next, place);
      continue;
    }
    if (match !== place) node.insertBefore(match, place);
    else place = place.nextSibling;
    morph(match, next);
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

// Sorting: a click on a heading sorts by it, largest first where the column holds numbers; another click turns it round.
const sorted = new Map();

function sortBy(table, column, descending) {
  sorted.set(table.id, { column, descending });
  const body = table.tBodies[0];
  const value = (row) => {
    const cell = row.cells[column];
    return "v" in cell.dataset ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent.trim();
  };
  const sign = descending ? -1 : 1;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
  if (rows.some((row, index) => row !== body.rows[index])) body.append(...rows);
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

document.addEventListener("click", (event) => {
  const head = event.target.closest("table.sortable thead th");
  if (head && event.target.closest("button")) {
    const table = head.closest("table");
    const before = sorted.get(table.id);
    const numbers = head.classList.contains("n");
    const again = before && before.column === head.cellIndex;
    sortBy(table, head.cellIndex, again ? !before.descending : numbers);
  }
  const action = event.target.closest("[data-post]");
  if (action) act(action);
});

async function act(button) {
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  button.disabled = true;
  try {
    const answer = await fetch(button.dataset.post, { method: "POST" });
    if (!answer.ok) window.alert((await answer.json()).detail);
  } catch {
    failures += 1;
  }
  button.disabled = false;
  ask();
}

// Times: how long ago, and clocks that run between two answers.
function ago(seconds) {
  const steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];
  const [, unit, name] = steps.find(([limit]) => seconds < limit);
  return seconds < 5 ? "just now" : Math.floor(seconds / unit) + " " + name + " ago";
}

function duration(seconds) {
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  if (seconds < 60) return Math.floor(seconds) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + two(seconds % 60) + " s";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + two((seconds % 3600) / 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor((seconds % 86400) / 3600) + " h";
}

function tick() {
  const now = Date.now();
  for (const node of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Math.max(0, (now - Date.parse(node.dateTime)) / 1000));
    if (node.textContent !== text) node.textContent = text;
  }
  for (const node of document.querySelectorAll("[data-clock]")) {
    const seconds = Math.max(0, (now - Date.parse(node.dataset.clock)) / 1000);
    if (node.localName === "progress") node.value = Math.min(node.max, seconds);
    else node.textContent = duration(seconds);
  }
}

function settle() {
  for (const [id, { column, descending }] of sorted) {
    const table = document.getElementById(id);
    if (table) sortBy(table, column, descending);
  }
  tick();
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : ask()));
window.addEventListener("online", ask);
tick();
setInterval(tick, 1000);
if (live) schedule();
