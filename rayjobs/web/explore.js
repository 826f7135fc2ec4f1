// Filters on the left, the chosen clip on the right. Every mark is written at once.
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const stage = new Stage($("stage"));
const FACTS = ["label_name", "source", "num_frames", "fps", "subject", "view", "generator", "parent_id",
  "class_confidence", "physics_violation", "novelty", "rejected_by"];
let page = 100;
let quality = [];
let start = 0;
let rows = [];
let chosen = -1;
let asked = 0; // of several answers only the last question's is shown

async function call(path, body) {
  const sent = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, sent);
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(typeof told.detail === "string" ? told.detail : `The server answered ${response.status}.`);
  return told;
}

function guarded(action) {
  return async (...given) => {
    try {
      $("trouble").textContent = "";
      await action(...given);
    } catch (error) {
      $("trouble").textContent = error.message;
    }
  };
}

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text ?? "" }, properties);
}

function shown(value) {
  if (value === null || value === undefined || value === "") return "";
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value);
}

const number = () => Number($("set").value);

const open = guarded(async () => {
  const about = await call("/api/about", { set: number() });
  quality = about.quality;
  $("about").textContent = `${about.kind}, ${about.clips.toLocaleString("en")} clips, ${about.marked} marked`;
  $("label").replaceChildren(element("option", "all", { value: "" }), ...about.classes.map((name, i) => element("option", name, { value: i })));
  $("state").replaceChildren(...about.states.map((s) => element("option", s)));
  $("order").replaceChildren(...about.orders.filter((o) => o === "stored" || o === "num_frames" || quality.includes(o)).map((o) => element("option", o)));
  $("ranges").replaceChildren(...quality.map((name) => {
    const box = element("label", `${name.replace("_", " ")} `);
    for (const end of ["from", "to"]) {
      box.append(Object.assign(document.createElement("input"), {
        type: "number", step: "any", id: `${name}-${end}`, placeholder: end, ariaLabel: `${name} ${end}`,
      }));
    }
    return box;
  }));
  $("head").replaceChildren(...["clip", "class", "source", "frames", ...quality].map((name, i) =>
    element("th", name.replace("_", " "), { className: i > 2 ? "number" : "" })));
  start = 0;
  await load();
});

async function load() {
  const end = (name, which) => {
    const text = $(`${name}-${which}`).value;
    return text === "" ? null : Number(text);
  };
  const mine = ++asked;
  const found = await call("/api/clips", {
    set: number(), start,
    label: $("label").value === "" ? null : Number($("label").value),
    source: $("source").value, state: $("state").value || "all",
    order: $("order").value || "stored", descending: $("descending").checked,
    ranges: Object.fromEntries(quality.map((name) => [name, [end(name, "from"), end(name, "to")]])),
  });
  if (mine !== asked) return;
  rows = found.clips;
  const last = start + rows.length;
  $("count").textContent = found.total ? `${start + 1} to ${last} of ${found.total.toLocaleString("en")}` : "no such clip";
  $("back").disabled = start === 0;
  $("forth").disabled = last >= found.total;
  $("rows").replaceChildren(...rows.map((row, i) => {
    const line = element("tr", "", { onclick: () => choose(i) });
    line.append(element("td", row.sample_id), element("td", row.label_name), element("td", row.source));
    for (const name of ["num_frames", ...quality]) line.append(element("td", shown(row[name]), { className: "number" }));
    line.classList.toggle("bad", row.mark !== null);
    return line;
  }));
  chosen = -1;
  if (rows.length) await choose(0);
  else {
    stage.clear();
    $("name").textContent = "";
    $("facts").replaceChildren();
  }
}

const choose = guarded(async (i) => {
  if (!rows[i]) return;
  chosen = i;
  const row = rows[i];
  [...$("rows").children].forEach((line, at) => line.setAttribute("aria-selected", at === i));
  $("rows").children[i].scrollIntoView({ block: "nearest" });
  const clip = await call("/api/clip", { set: number(), sample_id: row.sample_id });
  if (chosen !== i || rows[i] !== row) return;
  $("name").textContent = row.sample_id;
  $("facts").replaceChildren(...FACTS.filter((name) => shown(row[name])).flatMap((name) =>
    [element("dt", name.replace("_", " ")), element("dd", shown(row[name]))]));
  $("reason").value = row.mark ?? "";
  $("mark").textContent = row.mark === null ? "Mark as bad" : "Take the mark back";
  $("scrub").max = clip.persons[0].length - 1;
  $("play").textContent = "Pause";
  stage.play(clip);
});

const mark = guarded(async () => {
  const at = chosen;
  const row = rows[at];
  if (!row) return;
  const told = await call("/api/mark", { set: number(), sample_id: row.sample_id, bad: row.mark === null, reason: $("reason").value });
  row.mark = told.decision ? told.decision.reason : null;
  $("rows").children[at]?.classList.toggle("bad", row.mark !== null);
  $("mark").textContent = row.mark === null ? "Mark as bad" : "Take the mark back";
  $("about").textContent = $("about").textContent.replace(/\d+ marked$/, `${told.marked} marked`);
});

function toggle() {
  $("play").textContent = stage.toggle() ? "Pause" : "Play";
}

stage.onframe = (frame) => ($("scrub").value = frame);
$("set").addEventListener("change", open);
$("filters").addEventListener("change", guarded(() => ((start = 0), load())));
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("back").addEventListener("click", guarded(() => ((start = Math.max(0, start - page)), load())));
$("forth").addEventListener("click", guarded(() => ((start += page), load())));
$("play").addEventListener("click", toggle);
$("scrub").addEventListener("input", () => {
  stage.show(Number($("scrub").value));
  $("play").textContent = "Play";
});
$("speed").addEventListener("change", () => (stage.speed = Number($("speed").value)));
$("mark").addEventListener("click", mark);
document.addEventListener("keydown", (event) => {
  if (/INPUT|SELECT|BUTTON/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1), " ": toggle, b: mark }[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});

await guarded(async () => {
  const told = await call("/api/sets");
  page = told.page;
  $("set").replaceChildren(...told.sets.map((name, i) => element("option", name, { value: i })));
  await open();
})();
