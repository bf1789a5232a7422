"use strict";
const root = document.documentElement;
const all = (what, where = document) => [...where.querySelectorAll(what)];
const byId = (id) => document.getElementById(id);

// Theme: the system's until the button was pressed.
const theme = byId("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
function stored(value) {
  try {
    if (value) localStorage.setItem("theme", value);
    return localStorage.getItem("theme");
  } catch {
    return value; // storage is off: the choice lasts as long as the page
  }
}
function show(value) {
  if (value) root.dataset.theme = value;
  const dark = (value || (system.matches ? "dark" : "light")) === "dark";
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to the ${dark ? "light" : "dark"} theme`);
}
theme.addEventListener("click", () => {
  const value = theme.textContent.toLowerCase();
  stored(value);
  show(value);
});
system.addEventListener("change", () => show(root.dataset.theme));
show(stored());
theme.hidden = byId("filters").hidden = false;

// Sorting: numbers by value, names by letter, what is missing last either way.
function sort(button) {
  const header = button.closest("th");
  const table = button.closest("table");
  const turned = { ascending: "descending", descending: "ascending" };
  const order = turned[header.getAttribute("aria-sort")] || button.dataset.first;
  all("th[aria-sort]", table).forEach((th) => th.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", order);
  const key = (row) => row.cells[header.cellIndex].dataset.key;
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = Number(a) - Number(b);
    return sign * (Number.isNaN(difference) ? a.localeCompare(b, "en") : difference);
  };
  const rows = [...table.tBodies[0].rows];
  table.tBodies[0].append(...rows.sort((a, b) => compare(key(a), key(b))));
}
all(".sort").forEach((button) => button.addEventListener("click", () => sort(button)));

// Filters.
const find = byId("find");
const tasks = all("input[name=task]");
function filter() {
  const part = find.value.trim().toLowerCase();
  const hidden = new Set(tasks.filter((box) => !box.checked).map((box) => box.value));
  all("[data-task]").forEach((part) => (part.hidden = hidden.has(part.dataset.task)));
  const shown = new Set();
  const every = new Set();
  all("table.leaderboard").forEach((table) => {
    const rows = all("tbody tr", table);
    rows.forEach((row) => {
      row.hidden = !row.dataset.method.toLowerCase().includes(part);
      every.add(row.dataset.method);
      if (!row.hidden) shown.add(row.dataset.method);
    });
    const none = table.parentElement.querySelector(".none");
    if (none) none.hidden = rows.some((row) => !row.hidden);
  });
  all(".curve").forEach((curve) => {
    curve.hidden = !curve.dataset.method.toLowerCase().includes(part);
  });
  const count = part ? `${shown.size} of ${every.size}` : every.size;
  byId("count").textContent = `${count} methods`;
}
find.addEventListener("input", filter);
tasks.forEach((box) => box.addEventListener("change", filter));
byId("more").addEventListener("change", (event) => {
  root.classList.toggle("all", event.target.checked);
});
filter();

// Details of a row; its images are files beside the page, read when they are asked for.
all(".open").forEach((button) => {
  button.addEventListener("click", () => byId(button.dataset.opens).showModal());
});
all("dialog").forEach((dialog) => {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
});
all(".image").forEach((part) => {
  part.addEventListener("toggle", () => {
    if (!part.open || part.querySelector("img")) return;
    const image = new Image();
    image.alt = part.querySelector("summary").textContent;
    image.src = part.dataset.src;
    part.append(image);
  });
});

// Sentences about numbers, at the pointer or the finger.
const tip = byId("tip");
all("svg g > title").forEach((title) => {
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
});
function point(event) {
  const about = event.target.closest?.("[data-tip]");
  tip.hidden = !about;
  if (!about) return;
  tip.textContent = about.dataset.tip;
  const place = about.getBoundingClientRect();
  const left = place.left + place.width / 2 - tip.offsetWidth / 2;
  const above = place.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, Math.min(left, root.clientWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${above > 8 ? above : place.bottom + 8}px`;
}
document.addEventListener("pointerover", point);
document.addEventListener("scroll", () => (tip.hidden = true), true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
});
