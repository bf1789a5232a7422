"use strict";
// Theme: the system's until the button was pressed; the same on every page of the site.
const root = document.documentElement;
const theme = document.getElementById("theme");
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
theme.hidden = false;
