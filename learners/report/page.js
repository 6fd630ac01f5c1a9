"use strict";
// The script of a report: values of charts where a pointer or finger is, and the browser of rounds. It fetches nothing.
const make = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };
const brief = v => v === null || v === undefined ? "–" : Number.isInteger(v) ? String(v) : String(Number(v.toPrecision(3)));

function charts() {
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const data = JSON.parse(svg.dataset.chart), [low, high, start, end] = data.from;
    const legend = svg.parentElement.querySelector(".legend"), keys = [...legend.querySelectorAll(".name")], labels = keys.map(k => k.textContent);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor"); cursor.setAttribute("y1", 12); cursor.setAttribute("y2", 190);
    const show = event => {
      const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const x = low + (at - start) / (end - start) * (high - low), all = data.lines.flatMap(line => line[1]);
      const near = all.reduce((best, v) => Math.abs(v - x) < Math.abs(best - x) ? v : best, all[0]);
      const place = start + (near - low) / (high - low) * (end - start);
      cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); svg.append(cursor);
      keys.forEach((key, i) => { const at = data.lines[i][1].indexOf(near); key.textContent = labels[i] + (at < 0 ? "" : " " + brief(data.lines[i][2][at])); });
      let round = legend.querySelector(".read"); if (!round) { round = make("span", "read"); legend.append(round); }
      round.textContent = "round " + near;
    };
    const hide = () => { cursor.remove(); keys.forEach((key, i) => { key.textContent = labels[i]; }); const r = legend.querySelector(".read"); if (r) r.remove(); };
    svg.addEventListener("pointermove", show); svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
  }
  const box = document.querySelector("#smooth");
  if (box) box.addEventListener("change", () => document.body.classList.toggle("unsmoothed", !box.checked));
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.querySelector("#" + id).textContent.trim()), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

class Rounds {
  constructor(root, policies, lines) {
    this.root = root; this.policies = policies; this.rounds = new Map();
    for (const line of lines) {
      const found = /"round": (\d+)/.exec(line.slice(0, 60)); if (!found) continue;
      const n = Number(found[1]); if (!this.rounds.has(n)) this.rounds.set(n, []); this.rounds.get(n).push(line);
    }
    this.numbers = [...this.rounds.keys()].sort((a, b) => a - b);
    if (!this.numbers.length) return;
    root.replaceChildren(this.bar(), this.body = make("div")); this.show();
  }
  bar() {
    const bar = make("div", "bar");
    this.slider = make("input"); Object.assign(this.slider, { type: "range", min: 0, max: this.numbers.length - 1, value: this.numbers.length - 1 });
    this.slider.setAttribute("aria-label", "round"); this.title = make("b"); this.title.id = "round-shown";
    const step = (text, by) => { const b = make("button", "", text); b.addEventListener("click", () => { this.slider.value = Number(this.slider.value) + by; this.show(); }); return b; };
    this.slider.addEventListener("input", () => this.show());
    const choose = (name, options) => { const s = make("select"); s.setAttribute("aria-label", name); for (const o of options) s.append(new Option(o, o)); s.addEventListener("change", () => this.show()); return s; };
    this.policy = choose("policy", ["all policies", ...this.policies]);
    this.verdict = choose("verdict", ["all verdicts", "some right", "none right", "all right", "no verdict"]);
    this.taught = choose("lessons", ["with or without lessons", "with a borrowed lesson", "with a lesson that was refused", "without"]);
    this.words = make("input"); Object.assign(this.words, { type: "search", placeholder: "words of prompt or text" });
    this.words.addEventListener("input", () => this.show());
    bar.append(step("←", -1), this.slider, step("→", 1), this.title, this.policy, this.verdict, this.taught, this.words);
    return bar;
  }
  read(n) {
    const round = { groups: new Map(), lessons: [], left: 0 };
    for (const line of this.rounds.get(n).map(text => JSON.parse(text))) {
      for (const group of line.groups || []) {
        const key = group.task || JSON.stringify(group.prompt);
        if (!round.groups.has(key)) round.groups.set(key, { ...group, of: new Map() });
        round.groups.get(key).of.set(line.policy, group.completions);
      }
      for (const lesson of line.lessons || []) round.lessons.push({ ...lesson, reader: line.policy });
      if (line.groups) round.left += line.left_out || 0;
    }
    return round;
  }
  show() {
    const n = this.numbers[Number(this.slider.value)], round = this.read(n);
    this.title.textContent = "round " + n; this.body.replaceChildren();
    let shown = 0;
    for (const [key, group] of round.groups) {
      const lessons = round.lessons.filter(l => l.task === group.task);
      if (this.fits(group, lessons)) { this.body.append(this.prompt(group, lessons)); shown += 1; }
    }
    const rest = round.left ? `; ${round.left} groups of this round are not kept` : "";
    this.body.append(make("p", "note", `${shown} of ${round.groups.size} prompts${rest}`));
  }
  fits(group, lessons) {
    const chosen = this.policy.selectedIndex ? this.policy.value : null;
    const mine = chosen ? lessons.filter(l => l.reader === chosen || l.author === chosen) : lessons;
    const samples = [...group.of].filter(([p]) => !chosen || p === chosen).flatMap(([, c]) => c);
    const right = samples.filter(s => this.right(s)).length;
    const verdicts = [true, right > 0, right === 0, right === samples.length, samples.some(s => s[1] === null)];
    const taught = [true, mine.length > 0, mine.some(l => l.dropped), mine.length === 0];
    const words = this.words.value.toLowerCase();
    const text = words && JSON.stringify(group.prompt).toLowerCase() + samples.map(s => s[0].toLowerCase()).join("\n");
    return (!chosen || group.of.has(chosen)) && verdicts[this.verdict.selectedIndex] && taught[this.taught.selectedIndex] && (!words || text.includes(words));
  }
  right(sample) { return sample.length > 3 ? sample[3] : sample[1] > 0; }
  colour(policy) { const i = this.policies.indexOf(policy); return "c" + (i < 0 ? 7 : i % 8); }
  prompt(group, lessons) {
    const part = make("section", "task"), prompt = make("div", "prompt");
    for (const message of Array.isArray(group.prompt) ? group.prompt : [{ content: group.prompt }]) {
      if (message.role) prompt.append(make("span", "role", message.role));
      prompt.append(make("div", "", message.content));
    }
    prompt.append(make("span", "role", "answer"), make("div", "", group.answer));
    const groups = make("div", "groups");
    for (const [policy, completions] of group.of) groups.append(this.group(policy, completions, lessons));
    part.append(prompt, groups, ...lessons.map(lesson => this.lesson(lesson)));
    return part;
  }
  group(policy, completions, lessons) {
    const part = make("div", "group " + this.colour(policy)), right = completions.filter(c => this.right(c)).length;
    part.append(make("h4", "", `${policy}: ${right} of ${completions.length} right`));
    for (const sample of completions) {
      const [text, reward, status, , tokens, detail, advantage] = sample;
      const borrowed = lessons.filter(l => l.author === policy && l.text === text);
      const box = make("div", "sample" + (this.right(sample) ? " right" : "") + (borrowed.length ? " borrowed " + this.colour(borrowed[0].reader) : ""));
      const facts = [reward === null ? status : brief(reward), status === "ok" ? "" : status, detail || "",
        tokens ? tokens + (tokens === 1 ? " token" : " tokens") : "", advantage === undefined || advantage === null ? "" : "advantage " + brief(advantage),
        borrowed.length ? "→ " + [...new Set(borrowed.map(l => l.reader))].join(", ") : ""];
      box.append(make("code", "", text), make("div", "verdict", facts.filter((f, i) => f && facts.indexOf(f) === i).join(" · ")));
      part.append(box);
    }
    return part;
  }
  lesson(lesson) {
    const part = make("div", "lesson " + this.colour(lesson.author) + (lesson.dropped ? " refused" : "")), head = make("div");
    const arrow = make("span", "arrow"), author = make("span", "who " + this.colour(lesson.author), lesson.author);
    arrow.append(author, " → ", make("span", "who " + this.colour(lesson.reader), lesson.reader));
    const facts = [`advantage ${brief(lesson.advantage)}`, `weight ${brief(lesson.weight)}`, `${lesson.loss} · ${lesson.correction}`];
    if (lesson.given !== undefined && lesson.given !== lesson.weight) facts.push("given " + brief(lesson.given));
    if (lesson.exact !== undefined) facts.push(`${Math.round(100 * lesson.exact)} % of its tokens in exact chunks`);
    if (lesson.ratio !== undefined) facts.push("ratio " + brief(lesson.ratio));
    head.append(arrow, " " + (lesson.dropped ? "not taken: " + lesson.dropped.replaceAll("_", " ") + ". " : "") + facts.join(", "));
    part.append(head, make("code", "", lesson.text));
    if (lesson.pieces) part.append(this.tokens(lesson));
    return part;
  }
  tokens(lesson) {
    const part = make("details"), line = make("div", "tokens"); let before = null;
    part.append(make("summary", "", "tokens of the reader: chunks and ratios"), line);
    for (const [text, chunk, log] of lesson.pieces) {
      const token = make("span", "tok" + (chunk >= 0 ? " exact" : "") + (chunk !== before ? " edge" : ""), text === "" ? "∎" : text.replaceAll("\n", "⏎"));
      token.title = (chunk >= 0 ? "chunk " + chunk : "in no exact chunk") + (log === null ? "" : ", ratio " + brief(Math.exp(log)));
      if (log !== null) token.style.background = `color-mix(in srgb, ${log > 0 ? "var(--c2)" : "var(--c5)"} ${Math.min(60, Math.abs(log) * 25)}%, transparent)`;
      line.append(token); before = chunk;
    }
    return part;
  }
}

charts();
const root = document.querySelector("#rounds");
if (root) unpacked("recorded").then(text => { new Rounds(root, JSON.parse(root.dataset.policies), text.split("\n")); root.dataset.ready = "yes"; });
