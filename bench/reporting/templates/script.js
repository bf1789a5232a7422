const all = (what, where = document) => [...where.querySelectorAll(what)];
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

// What is selected is in the address: ?method=NAME, ?compare=NAME,NAME.
const query = new URLSearchParams(location.search);
function address(key, value) {
  query.set(key, value);
  history.replaceState(null, "", `?${query.toString().replaceAll("%2C", ",")}${location.hash}`);
}

all("#filters, #compare, .take").forEach((part) => (part.hidden = false));

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

// Filter by name.
const find = byId("find");
function filter() {
  const part = find.value.trim().toLowerCase();
  const matches = (text) => text.toLowerCase().includes(part);
  const shown = new Set();
  const every = new Set();
  all("table.leaderboard").forEach((table) => {
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row) => {
      row.hidden = !matches(row.querySelector("th").textContent);
      every.add(row.dataset.method);
      if (!row.hidden) shown.add(row.dataset.method);
    });
    const none = table.parentElement.querySelector(".none");
    if (none) none.hidden = rows.some((row) => !row.hidden);
  });
  all(".curve").forEach((curve) => (curve.hidden = !matches(curve.dataset.method)));
  const count = part ? `${shown.size} of ${every.size}` : every.size;
  byId("count").textContent = `${count} methods`;
}
find.addEventListener("input", filter);
filter();
filter();

// What is wider than the window says so.
function sideways() {
  all(".sideways").forEach((hint) => {
    const part = hint.nextElementSibling;
    hint.hidden = part.scrollWidth <= part.clientWidth;
  });
}
addEventListener("resize", sideways);
byId("more").addEventListener("change", (event) => {
  root.classList.toggle("all", event.target.checked);
  sideways();
});

// A method whose row was clicked is marked in every table.
function pick(method) {
  all("tr[data-method]").forEach((row) => {
    row.ariaCurrent = row.dataset.method === method ? "true" : null;
  });
}
all("table.leaderboard tbody").forEach((body) => {
  body.addEventListener("click", (event) => {
    const method = event.target.closest("tr").dataset.method;
    pick(method);
    address("method", method);
  });
});

// Two rows side by side, in every task that has both.
const compared = byId("compare");
const pickers = all("select", compared);
function cell(row, tag, text, scope = "") {
  const made = document.createElement(tag);
  Object.assign(made, { textContent: text, scope });
  row.append(made);
}
function compare() {
  const [a, b] = pickers.map((picker) => picker.value);
  const table = compared.querySelector("table");
  const rows = [];
  for (const [task, { rows: scores, pairs }] of Object.entries(data)) {
    const [i, j] = [a, b].map((method) => scores.findIndex(([name]) => name === method));
    if (a !== b && i >= 0 && j >= 0) rows.push([task, scores[i][1], scores[j][1], ...pairs[i][j]]);
  }
  const head = table.tHead.rows[0];
  [head, table.tBodies[0]].forEach((part) => part.replaceChildren());
  const titles = ["Task", a, b, "Difference (95% CI)", `P(${a} > ${b})`];
  titles.forEach((title) => cell(head, "th", title, "col"));
  rows.forEach(([task, ...texts]) => {
    const row = table.tBodies[0].insertRow();
    cell(row, "th", task, "row");
    texts.forEach((text) => cell(row, "td", text));
  });
  table.parentElement.hidden = !rows.length;
  sideways();
  const verdict = rows.length
    ? `${a} less ${b}, in points, paired; above 0, ${a} is better. `
      + "No probability is claimed where nothing is known of training runs."
    : "No task has both.";
  compared.querySelector(".hint").textContent =
    a && b && a !== b ? verdict : "Select two methods: each task that has both is a row.";
  if (rows.length) address("compare", `${a},${b}`);
}
pickers.forEach((picker) => picker.addEventListener("change", compare));
all(".with").forEach((button) => {
  button.addEventListener("click", () => {
    button.closest("dialog").close();
    pickers[0].value = button.dataset.method;
    compare();
    compared.scrollIntoView();
    pickers[1].focus();
  });
});

// Copies: a table in other forms; a figure in the light theme's colors, to stand alone.
function drawing(svg) {
  const light = (_, name) => getComputedStyle(root).getPropertyValue(name).match(/#\w+/)[0];
  return new XMLSerializer().serializeToString(svg).replace(/var\((--\w+)\)/g, light);
}
all(".take").forEach((button) => {
  button.addEventListener("click", async () => {
    const form = button.dataset.takes;
    const text = form === "svg"
      ? drawing(button.closest("figure").querySelector("svg"))
      : data[button.closest("section").id][form];
    const done = navigator.clipboard?.writeText(text) ?? Promise.reject();
    byId("said").textContent = await done.then(
      () => `Copied ${text.length.toLocaleString("en")} characters.`,
      () => "The browser does not let this page copy.",
    );
    setTimeout(() => (byId("said").textContent = ""), 3000);
  });
});

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
    image.alt = all("summary, .legend", part).map((text) => text.textContent).join(". ");
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

// Where the address leads.
const both = (query.get("compare") || "").split(",");
pickers.forEach((picker, n) => {
  picker.value = both[n] ?? "";
  if (picker.selectedIndex < 0) picker.value = "";
});
compare();
addEventListener("load", () => {
  if (query.has("method")) pick(query.get("method"));
  const part = byId(decodeURIComponent(location.hash.slice(1))) ?? document;
  if (query.has("method")) part.querySelector("tr[aria-current]")?.scrollIntoView({ block: "center" });
  else if (query.has("compare") && part === document) compared.scrollIntoView();
});
