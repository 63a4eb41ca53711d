// What a page can do without, added where scripts run: buttons that copy code, a narrower list, and a word while an answer is on its way.
"use strict";

for (const code of document.querySelectorAll(".runbook pre > code, .query pre > code, .steps pre > code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // No clipboard without HTTPS: selecting is half of copying.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  // Beside what scrolls: above it the button would cover what is to be copied.
  const box = document.createElement("div");
  box.className = "code";
  code.parentElement.replaceWith(box);
  box.append(code.parentElement, button);
}

// A long list can be narrowed by typing.
const runbooks = document.querySelector("ul.runbooks");
if (runbooks && runbooks.children.length > 10) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.id = "filter";
  box.type = "search";
  label.append("Only those with", box);
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/);
    for (const entry of runbooks.children) {
      const text = entry.textContent.toLowerCase();
      entry.hidden = !words.every((word) => text.includes(word));
    }
  });
  runbooks.before(label);
}

const ask = document.getElementById("ask");
if (ask) {
  const status = document.getElementById("status");
  ask.addEventListener("submit", () => {
    status.textContent = "Looking…";
    // Fields that are empty would only make the address long.
    for (const field of ask.elements) if (field.name && !field.value.trim()) field.disabled = true;
  });
  // Coming back finds the form as it was before it was sent.
  addEventListener("pageshow", () => {
    status.textContent = "";
    for (const field of ask.elements) field.disabled = false;
  });
  // Enter asks, as in any other search box; Shift and Enter begin a new line.
  document.getElementById("q").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask.requestSubmit();
  });
}
