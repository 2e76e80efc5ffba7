// What the pages do in the browser. They work without it, but for the colours and for links into Airflow's page.
"use strict";

// Airflow keeps the chosen colours here; "system" and nothing mean those of the machine.
function takeColours() {
  const colours = localStorage.getItem("theme");
  if (colours === "light" || colours === "dark") document.documentElement.dataset.colours = colours;
  else delete document.documentElement.dataset.colours;
}
takeColours();
// Somebody switches them on Airflow's page around this one.
addEventListener("storage", takeColours);

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-airflow]");
  if (!link || window.parent === window || event.ctrlKey || event.metaKey) return;
  // Airflow's frame lets no link leave it, so Airflow's own page is asked to go there.
  event.preventDefault();
  window.parent.history.pushState(null, "", link.getAttribute("href"));
  window.parent.dispatchEvent(new PopStateEvent("popstate", { state: null }));
});

// Nor does the frame let a window be opened; Airflow's own page may.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-outside]");
  if (!link || window.parent === window) return;
  event.preventDefault();
  window.parent.open(link.href, "_blank", "noopener,noreferrer");
});

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

// A file that is too large is told of before it is sent.
document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.type !== "file" || !input.dataset.largest) return;
  const megabytes = input.files.length ? input.files[0].size / 1e6 : 0;
  const isTooLarge = megabytes > Number(input.dataset.largest);
  input.setCustomValidity(isTooLarge ? `This file has ${megabytes.toFixed(1)} MB, and ${input.dataset.largest} MB is the most.` : "");
  input.reportValidity();
});
