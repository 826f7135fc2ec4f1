// One clip, one question at a time. An answer counts once the server has confirmed it; until then it is sent again.
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const stage = new Stage($("stage"));
let code = "";
let asked = null;
let shownAt = 0;

async function call(path, body) {
  const sent = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, sent);
  const told = await response.json().catch(() => ({}));
  if (response.ok) return told;
  const said = typeof told.detail === "string" ? told.detail : `The server answered ${response.status}.`;
  throw Object.assign(new Error(said), { final: response.status < 500 });
}

// A server that restarts is back in seconds: what has not been confirmed is sent again.
async function insist(path, body) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    try {
      const told = await call(path, body);
      $("trouble").textContent = "";
      return told;
    } catch (error) {
      if (error.final) throw error;
      $("trouble").textContent = "The server does not answer; trying again. Please leave this page open.";
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function show(id) {
  for (const part of ["welcome", "trial", "done"]) $(part).hidden = part !== id;
}

async function next() {
  asked = await insist("api/trial", { code });
  if (asked.done) {
    $("progress").textContent = "";
    stage.stop();
    return show("done");
  }
  $("progress").textContent = `${asked.number + 1} of ${asked.trials}`;
  $("question").textContent = asked.question;
  $("answers").replaceChildren(...asked.answers.map(({ value, text }, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.value = value;
    button.textContent = text;
    if (i < 9) {
      const key = document.createElement("kbd");
      key.textContent = i + 1;
      button.append(key);
    }
    button.addEventListener("click", () => answer(value));
    return button;
  }));
  show("trial");
  stage.play(asked.clip);
  shownAt = performance.now();
}

async function answer(value) {
  for (const button of $("answers").children) button.disabled = true;
  const milliseconds = Math.round(performance.now() - shownAt);
  try {
    await insist("api/answer", { code, number: asked.number, answer: value, milliseconds });
  } catch (error) {
    $("trouble").textContent = error.message;
  }
  await next();
}

$("welcome").addEventListener("submit", async (event) => {
  event.preventDefault();
  code = $("code").value.trim();
  try {
    await insist("api/join", { code, agree: $("agree").checked });
    await next();
  } catch (error) {
    $("trouble").textContent = error.message;
  }
});
$("again").addEventListener("click", () => stage.restart());
document.addEventListener("keydown", (event) => {
  if ($("trial").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = $("answers").children[Number(event.key) - 1];
  if (button && !button.disabled) button.click();
});

const about = await insist("api/study");
document.title = $("title").textContent = about.title;
$("consent").textContent = about.consent;
show("welcome");
