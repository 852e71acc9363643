// The page of `sfvqa serve`: one video, questions about it one after another, and the frames each answer looked at.
// Whatever comes from a file, a model or the server is put on the page as text, never as markup.

import { eventsOf, get, KeyNeeded, post, send } from "./server.js";

const byId = (id) => document.getElementById(id);
const MOST_FRAMES_SHOWN = 128;
const LARGE_SIDE = 1280;
const NEARLY = 0.7, WELL_ABOVE = 1.5; // of the strongest frame's share; of an even share
const STAGES = { search: "Looking for scenes", read: "Reading frames", encode: "Looking at frames" };

let model = null; // what /sfvqa/model says
let video = null; // {name, ready: a promise of its address, sending: an AbortController}
let messages = []; // the conversation about it so far
let running = null; // the AbortController of the question that is being answered

// --- What is shown ---

function show(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function tell(error, place = byId("error")) {
  if (error instanceof KeyNeeded) askForKey();
  else if (error.name !== "AbortError") show(place, error.message);
}

function formatTime(seconds) {
  const all = Math.round(seconds * 1000), whole = Math.floor(all / 1000);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const clock = hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  return all % 1000 ? `${clock}.${String(all % 1000).padStart(3, "0")}`.replace(/0+$/, "") : clock;
}

const formatShare = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const formatSeconds = (seconds) => `${seconds.toFixed(2)} s`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// --- Pictures of frames ---

const filmstrips = new Map(); // what was asked for, as JSON, to a promise of it

function filmstrip(address, wanted) {
  const key = JSON.stringify({ video: address, ...wanted });
  if (!filmstrips.has(key)) {
    const strip = post("/sfvqa/filmstrip", JSON.parse(key)).then((response) => response.json()).then((found) => {
      const bytes = Uint8Array.from(atob(found.jpeg), (letter) => letter.charCodeAt(0));
      return { ...found, url: URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })) };
    });
    strip.catch(() => filmstrips.delete(key));
    filmstrips.set(key, strip);
  }
  return filmstrips.get(key);
}

function forgetFilmstrips() {
  for (const strip of filmstrips.values()) strip.then(({ url }) => URL.revokeObjectURL(url), () => {});
  filmstrips.clear();
}

function paint(picture, strip, place) {
  const across = strip.columns, down = Math.ceil(strip.indices.length / across);
  const share = (position, total) => (total > 1 ? (100 * position) / (total - 1) : 0);
  picture.style.setProperty("--aspect", `${strip.width} / ${strip.height}`);
  picture.style.backgroundImage = `url(${strip.url})`;
  picture.style.backgroundSize = `${100 * across}% ${100 * down}%`;
  picture.style.backgroundPosition =
    `${share(place % across, across)}% ${share(Math.floor(place / across), down)}%`;
  picture.classList.toggle("missing", strip.missing.includes(strip.indices[place]));
}

// --- The video ---

async function choose(name, ready, sending = new AbortController()) {
  leaveVideo();
  const chosen = video = { name, ready, sending };
  byId("chooser").hidden = true;
  byId("chosen").hidden = false;
  show(byId("video-name"), name);
  show(byId("video-facts"), "");
  show(byId("error"), "");
  byId("question").focus();
  let isHere = false;
  try {
    const address = await ready;
    isHere = true;
    const strip = await filmstrip(address, { count: 8 });
    if (video !== chosen) return;
    show(byId("video-facts"), `${formatTime(strip.duration_seconds)}, ${strip.width} × ${strip.height} pixels`);
    for (const place of strip.indices.keys()) {
      paint(byId("preview").appendChild(element("span", "picture")), strip, place);
    }
  } catch (error) {
    if (video !== chosen) return;
    if (!isHere) leaveVideo();
    tell(error);
  }
}

function chooseFile(file) {
  const sending = new AbortController(), most = model?.largest_video_bytes ?? Infinity;
  if (file.size > most) {
    const size = Math.floor(most / 1e6).toLocaleString("en");
    tell(new Error(`“${file.name}” is larger than the ${size} MB that this server takes.`));
    return;
  }
  choose(file.name, send(file, sending.signal, (share) => {
    if (video?.sending === sending) show(byId("video-facts"), `Sending the video, ${Math.floor(100 * share)} %`);
  }), sending);
}

function leaveVideo() {
  video?.sending.abort();
  video = null;
  startOver();
  forgetFilmstrips();
  byId("preview").replaceChildren();
  byId("chooser").hidden = false;
  byId("chosen").hidden = true;
}

function startOver() {
  running?.abort();
  messages = [];
  byId("log").replaceChildren();
  byId("start-over").hidden = true;
}

// --- A question and its answer ---

function settings() {
  const given = Object.fromEntries(new FormData(byId("settings-form")));
  const text = (name) => (given[name].trim() ? { [name]: given[name].trim() } : {});
  const number = (name) => (given[name] ? { [name]: Number(given[name]) } : {});
  const choices = given.choices.split("\n").map((line) => line.trim()).filter(Boolean);
  return {
    ...number("temperature"),
    ...number("max_tokens"),
    sfvqa: {
      ...number("frames"),
      ...text("sampling"),
      ...(given.sampling === "fps" ? number("fps") : {}),
      ...text("start"),
      ...text("end"),
      ...(choices.length ? { choices } : {}),
      evidence: "evidence" in given,
      progress: true,
    },
  };
}

async function ask(question) {
  const turn = byId("turn").content.cloneNode(true).firstElementChild;
  const part = (name) => turn.querySelector(name);
  const asked = { role: "user", content: question };
  const stopping = new AbortController();
  turn.querySelector("h2").textContent = question;
  byId("log").append(turn);
  byId("start-over").hidden = false;
  show(byId("error"), "");
  setRunning(stopping);
  showProgress(turn, "Waiting for the model");
  part(".answer").setAttribute("aria-busy", "true"); // read aloud as a whole
  turn.scrollIntoView({ block: "nearest" });
  let text = "";
  try {
    const address = await untilAborted(video.ready, stopping.signal);
    if (!messages.length) asked.content = [videoPart(address), { type: "text", text: question }];
    const body = { model: model.name, stream: true, messages: [...messages, asked], ...settings() };
    for await (const event of eventsOf(await post("/v1/chat/completions", body, stopping.signal))) {
      const piece = event.choices[0]?.delta.content, progress = event.sfvqa?.progress;
      if (progress) showProgress(turn, STAGES[progress.stage], progress.done, progress.total);
      if (piece) {
        text += piece;
        part(".status").hidden = true;
        keepInView(() => part(".answer").append(piece));
      }
      if (event.sfvqa?.timings) keepInView(() => showAnswer(turn, event.sfvqa, address));
    }
  } catch (error) {
    if (!turn.isConnected) return;
    if (error.name === "AbortError" && text) part(".answer").classList.add("is-cut");
    else if (error.name === "AbortError") show(part(".answer"), "Stopped.");
    tell(error, part(".error"));
    turn.scrollIntoView({ block: "nearest" });
    if (!text && !byId("question").value) byId("question").value = question;
  } finally {
    part(".status").hidden = true;
    part(".answer").removeAttribute("aria-busy");
    if (running === stopping) setRunning(null);
  }
  if (text && turn.isConnected) messages.push(asked, { role: "assistant", content: text });
}

const videoPart = (address) => address.startsWith("file://")
  ? { type: "video_url", video_url: { url: address } } : { type: "file", file: { file_id: address } };

function untilAborted(promise, signal) {
  return Promise.race([promise, new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
  })]);
}

function setRunning(controller) {
  running = controller;
  byId("submit").textContent = running ? "Stop" : "Ask";
}

function showProgress(turn, what, done, total) {
  const bar = turn.querySelector("progress");
  turn.querySelector(".status").hidden = false;
  if (total) Object.assign(bar, { max: total, value: done });
  turn.querySelector(".status span").textContent = total ? `${what}, ${done} of ${total}` : `${what} …`;
}

function keepInView(change) {
  const page = document.scrollingElement;
  const isAtEnd = page.scrollTop + page.clientHeight > page.scrollHeight - 80;
  change();
  if (isAtEnd) page.scrollTop = page.scrollHeight;
}

function showAnswer(turn, answer, address) {
  if (answer.finish_reason === "length") turn.querySelector(".answer").classList.add("is-cut");
  for (const choice of [...(answer.choices ?? [])].sort((one, other) => other.probability - one.probability)) {
    const line = element("li", ""), bar = element("span", "bar"), filled = element("span", "");
    filled.style.width = formatShare(choice.probability).replace(" ", "");
    bar.append(filled);
    line.append(element("span", "", choice.text), element("span", "quiet", formatShare(choice.probability)), bar);
    turn.querySelector(".choices").append(line);
    turn.querySelector(".choices").hidden = false;
  }
  for (const warning of answer.warnings) {
    turn.querySelector(".warnings").append(element("li", "", warning));
    turn.querySelector(".warnings").hidden = false;
  }
  showTimings(turn.querySelector("details"), answer);
  showFrames(turn.querySelector("figure"), answer, address);
}

function showTimings(details, { timings, tokens, frames, from_video_cache: isKept }) {
  details.hidden = false;
  details.querySelector("summary").textContent = `First words after ${formatSeconds(timings.ttft_seconds)}, ` +
    `${formatSeconds(timings.total_seconds)} in all, ${count(frames.count, "frame")}`;
  const lines = {
    [isKept ? "Finding the video in the cache" : "Reading the video"]: formatSeconds(timings.read_seconds),
    "Looking at the frames": formatSeconds(timings.encode_seconds),
    "Both at the same time": timings.overlap_seconds && formatSeconds(timings.overlap_seconds),
    "Taking in the question": formatSeconds(timings.prefill_seconds),
    "Writing the answer": formatSeconds(timings.decode_seconds),
    "Tokens a second": timings.tokens_per_second?.toFixed(1),
    "Tokens written": tokens.new.toLocaleString("en"),
    "Tokens of the prompt": tokens.prompt.toLocaleString("en"),
    "Slow tokens beside it": tokens.slow && tokens.slow.toLocaleString("en"),
  };
  for (const [name, value] of Object.entries(lines)) {
    if (value) details.querySelector("dl").append(element("dt", "", name), element("dd", "", value));
  }
}

// --- The frames of an answer ---

function showFrames(figure, answer, address) {
  const { indices, timestamps_seconds: times } = answer.frames;
  const all = answer.evidence?.length ? answer.evidence
    : indices.map((index, place) => ({ index, timestamp_seconds: times[place], weight: null }));
  if (!all.length) return;
  const frames = mostImportant(all);
  const strongest = frames.reduce((one, other) => (other.weight > one.weight ? other : one));
  const strip = figure.querySelector(".strip");
  figure.hidden = false;
  figure.querySelector("figcaption").textContent = caption(all, frames, strongest);
  const buttons = frames.map((frame) => frameButton(frame, strongest, all.length));
  const current = frames.indexOf(strongest);
  strip.append(...buttons);
  moveThrough(strip, buttons, current);
  buttons.forEach((button, place) => button.addEventListener("click", () => view(frames, place, address)));
  strip.scrollLeft = buttons[current].offsetLeft - (strip.clientWidth - buttons[current].offsetWidth) / 2;
  filmstrip(address, { indices: frames.map((frame) => frame.index), side: 224 }).then((pictures) => {
    keepInView(() => buttons.forEach((button, place) => paint(button.firstElementChild, pictures, place)));
  }).catch(() => {
    figure.querySelector("figcaption").textContent += " The pictures cannot be shown: the video cannot be read again.";
  });
}

function mostImportant(frames) {
  const ranked = [...frames].sort((one, other) => other.weight - one.weight).slice(0, MOST_FRAMES_SHOWN);
  return ranked.sort((one, other) => one.index - other.index);
}

function caption(all, frames, strongest) {
  const shown = frames.length < all.length ? ` ${frames.length} of ${all.length} frames are shown.` : "";
  if (strongest.weight === null) return `What the model saw.${shown}`;
  const time = formatTime(strongest.timestamp_seconds);
  return `The answer looked most at ${time}: ${formatShare(strongest.weight)} of its attention, ` +
    `where an even share is ${formatShare(1 / all.length)}. A hint, not proof.${shown}`;
}

function describeFrame({ timestamp_seconds: time, weight }) {
  return formatTime(time) + (weight === null ? "" : `, ${formatShare(weight)} of the attention`);
}

function frameButton(frame, strongest, total) {
  const button = element("button", "frame");
  button.type = "button";
  button.append(element("span", "picture"));
  if (frame.weight !== null) {
    const isPeak = frame === strongest || frame.weight >= Math.max(NEARLY * strongest.weight, WELL_ABOVE / total);
    const bar = element("span", "bar"), filled = element("span", "");
    filled.style.height = `${strongest.weight ? (100 * frame.weight) / strongest.weight : 0}%`;
    button.classList.toggle("is-peak", isPeak);
    bar.append(filled);
    button.append(bar);
  }
  button.append(element("span", "time", formatTime(frame.timestamp_seconds)));
  button.title = describeFrame(frame) + (frame === strongest && frame.weight ? ", the most" : "");
  button.setAttribute("aria-label", button.title);
  return button;
}

function moveThrough(strip, buttons, current) { // one stop of the Tab key for all, arrows between them
  buttons.forEach((button, place) => { button.tabIndex = place === current ? 0 : -1; });
  strip.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
    const to = { Home: 0, End: buttons.length - 1 }[event.key] ?? at + steps[event.key];
    if (!(to in buttons)) return;
    event.preventDefault();
    buttons[at].tabIndex = -1;
    buttons[to].tabIndex = 0;
    buttons[to].focus();
  });
}

let viewed = null; // {frames, place, address} in the viewer

function view(frames, place, address) {
  if (!(place in frames)) return;
  viewed = { frames, place, address };
  const mine = viewed, picture = byId("viewer-picture");
  byId("viewer-caption").textContent = describeFrame(frames[place]);
  byId("earlier").disabled = place === 0;
  byId("later").disabled = place === frames.length - 1;
  if (!byId("viewer").open) byId("viewer").showModal();
  filmstrip(address, { indices: [frames[place].index], side: LARGE_SIDE }).then((strip) => {
    if (viewed !== mine) return;
    picture.src = strip.url;
    picture.alt = `The frame at ${formatTime(frames[place].timestamp_seconds)}`;
  }).catch((error) => {
    if (viewed === mine) tell(error, byId("viewer-caption"));
  });
}

const step = (by) => view(viewed.frames, viewed.place + by, viewed.address);

// --- What the user does ---

const on = (id, type, act) => byId(id).addEventListener(type, act);

function onSubmit(id, act) {
  on(id, "submit", (event) => {
    event.preventDefault();
    act();
  });
}

onSubmit("composer", () => (running ? running.abort() : submit()));

async function submit() {
  if (!model) await start();
  const question = byId("question").value.trim();
  if (!model || !question) return;
  if (!video) {
    tell(new Error("Choose a video first."));
    byId("file").focus();
    return;
  }
  byId("question").value = "";
  ask(question);
}

on("question", "keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) submit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.abort();
});

on("file", "change", ({ target }) => {
  if (target.files[0]) chooseFile(target.files[0]);
  target.value = "";
});

on("change", "click", () => {
  leaveVideo();
  byId("file").focus();
});

on("start-over", "click", () => {
  startOver();
  byId("question").focus();
});

for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", type === "dragover" || (type === "dragleave" && !!event.relatedTarget));
    if (type === "drop" && event.dataTransfer.files[0]) chooseFile(event.dataTransfer.files[0]);
  });
}

on("viewer", "keydown", ({ key }) => {
  if (key === "ArrowLeft") step(-1);
  if (key === "ArrowRight") step(1);
});
on("earlier", "click", () => step(-1));
on("later", "click", () => step(1));
on("close-viewer", "click", () => byId("viewer").close());
on("viewer", "close", () => byId("viewer-picture").removeAttribute("src"));

on("settings-button", "click", () => byId("settings").showModal());
on("settings-form", "input", ({ target }) => {
  if (target.name === "sampling") byId("rate").hidden = target.value !== "fps";
});
on("settings-form", "reset", () => { byId("rate").hidden = true; });
onSubmit("settings-form", () => byId("settings").close());

onSubmit("key-form", () => {
  sessionStorage.setItem("key", byId("key").value.trim());
  byId("key-form").reset();
  byId("key-form").hidden = true;
  start();
});

function askForKey() {
  if (sessionStorage.getItem("key")) show(byId("error"), "The server does not accept this key.");
  sessionStorage.removeItem("key");
  byId("key-form").hidden = false;
  byId("key").focus();
}

function list(videos) {
  const buttons = videos.map(({ url, name }) => {
    const button = element("button", "", name);
    button.type = "button";
    button.title = readable(new URL(url).pathname);
    button.addEventListener("click", () => choose(name, Promise.resolve(url)));
    return button;
  });
  byId("listed-videos").replaceChildren(...buttons);
  moveThrough(byId("listed-videos"), buttons, 0);
  byId("listed").hidden = !videos.length;
}

function readable(path) {
  try {
    return decodeURIComponent(path);
  } catch { // a name that is no UTF-8
    return path;
  }
}

async function start() {
  show(byId("error"), "");
  try {
    model = await get("/sfvqa/model");
    list((await get("/sfvqa/videos")).videos);
  } catch (error) {
    tell(error);
    return;
  }
  const fields = byId("settings-form").elements;
  show(byId("model"), `answered by ${model.name}`);
  fields.frames.placeholder = model.num_frames;
  fields.max_tokens.placeholder = model.max_tokens;
  fields.evidence.disabled = !model.gives_evidence;
  byId("no-evidence").hidden = model.gives_evidence;
}

start();
