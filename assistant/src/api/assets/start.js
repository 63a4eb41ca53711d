// Sends the question to /diagnose and /search and shows both answers. All text goes in as text, never as HTML.
"use strict";

const find = (id) => document.getElementById(id);

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children.filter(Boolean));
  return made;
}

function link(text, address) {
  const made = element("a", text);
  // Only pages of this service.
  if (address && address.startsWith("/") && !address.startsWith("//")) made.href = address;
  return made;
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || response.statusText);
  return answer;
}

function number(value) {
  return typeof value === "number" ? Number(value.toPrecision(3)).toString() : "no value";
}

function evidence(item) {
  const text = `${item.outcome}: ${item.title || item.id}`;
  const value = item.value === null || item.value === undefined ? "" : ` = ${number(item.value)} ${item.unit || ""} (${item.threshold})`;
  const made = element("li", text + value);
  made.className = item.outcome;
  made.title = item.query || "";
  return made;
}

function hypothesis(found) {
  const confidence = `${Math.round((found.confidence || 0) * 100)} %`;
  const places = (found.affected || []).map((place) => {
    const end = (namespace, workload) => [namespace, workload].filter(Boolean).join("/");
    const peer = end(place.peer_namespace, place.peer_workload);
    return end(place.namespace, place.workload) + (peer ? ` → ${peer}` : "");
  });
  const runbook = found.runbook || {};
  return element("article", "",
    element("h3", `${found.rank}. ${found.title} · ${confidence}`),
    places.length ? element("p", places.join(", ")) : null,
    element("ul", "", ...(found.evidence || []).map(evidence)),
    element("ol", "", ...(found.next_steps || []).map((step) => element("li", step.text))),
    element("p", "", link(runbook.title || "", runbook.url)));
}

function passage(found) {
  const address = `${found.runbook.url}#${found.section.anchor}`;
  return element("article", "",
    element("h3", "", link(found.section.heading_path.join(" › "), address)),
    element("p", `${found.runbook.path}:${found.section.line_start}–${found.section.line_end} · ${found.score.toFixed(2)}`),
    element("pre", found.text));
}

function show(id, ...children) {
  find(id).replaceChildren(...children.filter(Boolean));
}

async function ask(event) {
  event.preventDefault();
  const query = find("query").value.trim();
  const scope = {};
  for (const key of ["namespace", "workload"]) {
    const value = find(key).value.trim();
    if (value) scope[key] = value;
  }
  show("diagnosis", element("p", "Looking…"));
  show("passages");

  const question = {};
  if (query) question.query = query;
  if (Object.keys(scope).length) question.scope = scope;
  try {
    const answer = await post("/diagnose", question);
    show("diagnosis",
      element("h2", answer.summary || answer.status),
      ...(answer.hypotheses || []).map(hypothesis),
      ...(answer.degraded || []).map((part) => element("p", `${part.part}: ${part.reason}`)));
  } catch (error) {
    show("diagnosis", element("p", `No diagnosis: ${error.message}`));
  }
  if (!query) return;
  try {
    const answer = await post("/search", { query, limit: 5 });
    show("passages",
      element("h2", answer.answerable ? "From the runbooks" : "Nothing in the runbooks is about that. The nearest:"),
      ...answer.results.map(passage));
  } catch (error) {
    show("passages", element("p", `No passages: ${error.message}`));
  }
}

find("ask").addEventListener("submit", ask);
