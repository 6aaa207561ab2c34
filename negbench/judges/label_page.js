"use strict";
const $ = (id) => document.getElementById(id);
const answers = { yes: $("yes"), no: $("no"), unsure: $("unsure") };
const keys = { y: "yes", n: "no", u: "unsure" };
let state = null;
let busy = false;

function show(next) {
  state = next;
  const share = next.total ? next.labelled / next.total : 1;
  $("fill").style.width = `${100 * share}%`;
  const bar = document.querySelector(".bar");
  bar.setAttribute("aria-valuemax", String(next.total));
  bar.setAttribute("aria-valuenow", String(next.labelled));
  $("count").textContent = `${next.labelled} of ${next.total} pictures labelled`;
  const done = next.n === null;
  $("back").disabled = next.previous === null;
  for (const button of Object.values(answers)) button.disabled = done;
  for (const [name, button] of Object.entries(answers)) {
    button.classList.toggle("chosen", next.answer === name);
    button.setAttribute("aria-pressed", String(next.answer === name));
  }
  $("before").textContent = next.answer ? `You said: ${next.answer}. Answer again to change it.` : "";
  $("ask").hidden = $("mark").hidden = done;
  $("picture").hidden = done;
  $("note").className = "";
  if (done) {
    $("concept").textContent = "All pictures are labelled. Thank you!";
    $("note").textContent = "You may close this page; every label is saved.";
    return;
  }
  $("concept").textContent = next.concept;
  $("note").textContent = next.n === 0 && next.labelled === 0
    ? "Judge only what you see. Keys: Y yes, N no, U unsure, B or ← back." : "";
  const picture = $("picture");
  picture.onload = () => picture.classList.toggle("small", picture.naturalWidth < 200);
  picture.src = `image/${next.n}`;
  if (next.following !== null) new Image().src = `image/${next.following}`;
}

async function ask(path, body) {
  if (busy) return;
  busy = true;
  try {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    };
    const response = await fetch(path, { cache: "no-store", ...options });
    const reply = await response.json();
    if (!response.ok) throw new Error(reply.error || `status ${response.status}`);
    show(reply);
  } catch (error) {
    $("note").className = "bad";
    $("note").textContent = `Not saved: ${error.message}. Is negbench label still running?`;
  } finally {
    busy = false;
  }
}

const say = (answer) => { if (state && state.n !== null) ask("answer", { n: state.n, answer }); };
const back = () => { if (state && state.previous !== null) ask(`state/${state.previous}`); };
for (const [name, button] of Object.entries(answers)) button.addEventListener("click", () => say(name));
$("back").addEventListener("click", back);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (keys[key]) { event.preventDefault(); say(keys[key]); }
  if (key === "b" || key === "arrowleft" || key === "backspace") { event.preventDefault(); back(); }
});
ask("state");
