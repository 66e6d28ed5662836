// What the user does, and what then changes.

const canvas = byId("map"), card = byId("card");
const state = {
  layer: null, // the one shown
  hidden: new Set(), // numbers of classes
  words: [], // all of which a name must hold
  at: -1, // the video at the pointer or the keyboard's place, -1 for none
  cursor: -1, // where the arrows go on from
  chosen: [], // at most two
};
const lowered = keys.map((key) => key.toLowerCase());
let visible = new Uint8Array(numVideos).fill(1);

const map = createMap(canvas, (video) => visible[video]);
const gallery = createGallery(byId("gallery"), byId("gallery-end"), { onChoose: choose, onPoint: (video) => point(video, { card: false }) });

// Point at a video, -1 for none; `say` tells it to a screen reader
function point(video, { card: withCard = true, say = false } = {}) {
  state.at = video;
  map.setMarks({ at: video, chosen: state.chosen, neighbours: video < 0 ? [] : neighboursOf(state.layer, video).map((n) => n.video).filter((n) => visible[n]) });
  if (video < 0 || !withCard) card.hidden = true;
  else {
    if (card.dataset.video !== String(video) || card.dataset.layer !== state.layer.name) fillCard(card, state.layer, video);
    card.dataset.layer = state.layer.name;
    placeCard(card, map.place(video), map.size);
  }
  if (say && video >= 0) tell(`${shown(keys[video])}, ${facts(video)}`);
}

function tell(text) { byId("live").textContent = text; }

function choose(video) {
  state.chosen = [...state.chosen.filter((other) => other !== video), video].slice(-2);
  state.cursor = video;
  showChosen();
  const [first, second] = state.chosen;
  tell(state.chosen.length < 2 ? `Chosen: ${shown(keys[first])}` : `Cosine of ${shown(keys[first])} and ${shown(keys[second])}: ${byId("cosine").textContent}`);
}

function clear() {
  state.chosen = [];
  showChosen();
}

function showChosen() {
  const last = state.chosen.length ? state.chosen[state.chosen.length - 1] : -1;
  fillPair(byId("pair"), state.layer, state.chosen, clear);
  const names = state.chosen.map((video) => shown(baseName(keys[video])));
  byId("bar").textContent = names.length === 2 ? `${names.join(" and ")}: cosine ${byId("cosine").textContent}` : `${names[0] || ""} is chosen; choose another to compare`;
  byId("bar").hidden = !names.length;
  fillNeighbours(state.layer, last, { onChoose: choose, onPoint: (video) => point(video, { card: false }) });
  gallery.press(state.chosen);
  point(state.at, { card: !card.hidden });
}

// Which videos the filter leaves

function applyFilter() {
  const left = [];
  for (let video = 0; video < numVideos; video++) {
    visible[video] = !state.hidden.has(data.class_of[video]) && state.words.every((word) => lowered[video].includes(word)) ? 1 : 0;
    if (visible[video]) left.push(video);
  }
  const all = left.length === numVideos;
  byId("shown").textContent = all ? plural(numVideos, "video") : `${count(left.length)} of ${plural(numVideos, "video")}`;
  byId("gallery-caption").textContent = `${all ? `All ${plural(numVideos, "video")}` : `${count(left.length)} of ${plural(numVideos, "video")}, as filtered above the map`}; choose two to compare them.`;
  if (state.at >= 0 && !visible[state.at]) point(-1);
  gallery.show(left);
  map.repaint();
}

function fillLegend() {
  const counts = new Uint32Array(data.classes.length);
  for (const number of data.class_of) counts[number]++;
  byId("classes").append(...data.classes.map((_, number) => {
    const mark = element("canvas", { "aria-hidden": "true" });
    const button = element("button", { type: "button", class: "class", "aria-pressed": "true", "data-class": number },
      mark, element("span", { class: "name" }, className(number)), element("span", { class: "count" }, count(counts[number])));
    button.addEventListener("click", (event) => {
      if (event.altKey) data.classes.forEach((_, other) => (other === number ? state.hidden.delete(other) : state.hidden.add(other)));
      else if (!state.hidden.delete(number)) state.hidden.add(number);
      pressClasses();
    });
    button.title = `${className(number)}: ${plural(counts[number], "video")}. Click to hide or show, Alt-click for this one alone`;
    return button;
  }));
  byId("classes-all").addEventListener("click", () => { state.hidden.clear(); pressClasses(); });
  byId("classes-none").addEventListener("click", () => { data.classes.forEach((_, number) => state.hidden.add(number)); pressClasses(); });
  byId("legend-heading").textContent = `${data.grouped_by === "label" ? "Labels" : "Classes"} (${count(data.classes.length)})`;
  arrowsWithin(byId("classes"), ".class");
}

function pressClasses() {
  for (const button of byId("classes").children) button.setAttribute("aria-pressed", String(!state.hidden.has(Number(button.dataset.class))));
  applyFilter();
}

function paintLegend() {
  const dots = window.devicePixelRatio || 1;
  for (const button of byId("classes").children) {
    const mark = button.firstChild, pen = mark.getContext("2d");
    mark.width = mark.height = Math.round(16 * dots);
    pen.setTransform(dots, 0, 0, dots, 8 * dots, 8 * dots);
    drawMark(pen, Number(button.dataset.class), 5.2);
  }
}

// The pointer

const pointers = new Map(); // those that are down: id -> [x, y]
let pressed = null, pinch = 0;
const within = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
const spread = () => { const [[ax, ay], [bx, by]] = [...pointers.values()]; return Math.hypot(ax - bx, ay - by); };

canvas.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, within(event));
  pressed = pointers.size === 1 ? { from: within(event), moved: false } : null;
  if (pointers.size === 2) pinch = spread();
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = within(event), before = pointers.get(event.pointerId);
  if (!before) {
    if (event.pointerType !== "touch") point(map.videoAt(x, y));
    return;
  }
  pointers.set(event.pointerId, [x, y]);
  if (pointers.size === 2) {
    const [[ax, ay], [bx, by]] = [...pointers.values()], now = spread();
    if (pinch > 0) map.zoom(now / pinch, (ax + bx) / 2, (ay + by) / 2);
    pinch = now;
  } else if (pressed) {
    pressed.moved ||= Math.hypot(x - pressed.from[0], y - pressed.from[1]) > 4;
    if (!pressed.moved) return;
    canvas.classList.add("moving");
    card.hidden = true;
    map.move(x - before[0], y - before[1]);
  }
});
function release(event) {
  const [x, y] = within(event);
  pointers.delete(event.pointerId);
  canvas.classList.remove("moving");
  if (event.type === "pointerup" && pressed && !pressed.moved) {
    const video = map.videoAt(x, y, event.pointerType === "touch" ? 26 : REACH);
    point(video);
    if (video >= 0) choose(video);
  }
  pressed = null;
}
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => { if (!pointers.size) point(-1); });
canvas.addEventListener("wheel", (event) => {
  if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return; // the page is scrolled
  event.preventDefault();
  map.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...within(event));
  point(-1);
}, { passive: false });

// The keyboard

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function go(video) {
  if (video < 0) return;
  state.cursor = video;
  map.reveal(video);
  point(video, { say: true });
}

// Where the keyboard is: the last place, if it is still shown, else the video nearest to the middle
function cursor() {
  if (state.cursor >= 0 && visible[state.cursor]) return state.cursor;
  const [width, height] = map.size;
  return map.videoAt(width / 2, height / 2, Infinity);
}

function nextByName(step) {
  for (let video = cursor() + step; video >= 0 && video < numVideos; video += step) if (visible[video]) return video;
  return -1;
}

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = cursor(), keyActions = {
    Enter: () => at >= 0 && choose(at),
    " ": () => at >= 0 && choose(at),
    n: () => at >= 0 && go((neighboursOf(state.layer, at).find((n) => visible[n.video]) || { video: -1 }).video),
    "+": () => map.zoom(1.4), "=": () => map.zoom(1.4), "-": () => map.zoom(1 / 1.4), 0: () => map.showAll(),
    PageDown: () => go(nextByName(1)), PageUp: () => go(nextByName(-1)),
    Home: () => go(visible.indexOf(1)), End: () => go(visible.lastIndexOf(1)),
  };
  const direction = DIRECTIONS[event.key], action = keyActions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!direction && !action) return;
  event.preventDefault();
  if (direction && at >= 0) go(state.at < 0 ? at : map.videoTowards(at, ...direction));
  else if (action) {
    action();
    if (state.at >= 0) point(state.at);
  }
});
canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) go(cursor()); });
canvas.addEventListener("blur", () => point(-1));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (!card.hidden) point(-1); // at first what covers the map, then what was chosen
  else if (state.chosen.length) clear();
});

// Layers, themes, and the beginning

function setLayer(chosen) {
  state.layer = layerOf(chosen);
  const { method, explained, exact, dims, vector_dims: kept } = state.layer;
  const share = explained ? ` (${(100 * (explained[0] + (explained[1] || 0))).toFixed(0)} % of the variance)` : "";
  const how = method === "tsne" ? "t-SNE of its first principal components" : `the first two principal components${share}`;
  byId("map-caption").textContent = `A point is a video: its ${shown(chosen)} descriptor of ${count(dims)} dimensions and unit length, placed by ${how}. Neighbours are the nearest by cosine in all dimensions${exact ? "." : `; other pairs are compared in ${count(kept)}.`}`;
  map.setPoints(state.layer.points);
  state.at = -1;
  showChosen();
}

function setTheme(chosen) {
  document.documentElement.dataset.theme = chosen;
  byId("theme").textContent = chosen === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Change to ${chosen === "dark" ? "light" : "dark"} colours`);
  paintLegend();
  map.repaint();
}

function remembered() {
  try { return localStorage.getItem("featx-theme"); } catch { return null; } // a page from a file may have no memory
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
byId("theme").addEventListener("click", () => {
  const next = theme() === "dark" ? "light" : "dark";
  try { localStorage.setItem("featx-theme", next); } catch { /* as above */ }
  setTheme(next);
});
prefersDark.addEventListener("change", () => { if (!remembered()) setTheme(prefersDark.matches ? "dark" : "light"); });

byId("search").addEventListener("input", (event) => {
  state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  applyFilter();
});
byId("zoom-in").addEventListener("click", () => map.zoom(1.5));
byId("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
byId("zoom-all").addEventListener("click", () => map.showAll());
byId("layer").addEventListener("change", (event) => setLayer(event.target.value));
arrowsWithin(byId("neighbours"), ".neighbour");
arrowsWithin(byId("gallery"), ".thing");

document.documentElement.dataset.theme = remembered() || (prefersDark.matches ? "dark" : "light");
fillTop();
fillTiles();
fillClips();
fillFailures();
fillMade();
byId("map-section").hidden = byId("gallery-section").hidden = !numVideos;
if (numVideos) {
  const names = Object.keys(data.layers);
  byId("layer").append(...names.map((one) => element("option", { value: one }, shown(one))));
  byId("layer-label").hidden = names.length < 2;
  fillLegend();
  setLayer(names[0]);
  applyFilter();
  map.resize();
  new ResizeObserver(() => map.resize()).observe(byId("plot"));
}
setTheme(theme());
// for programs that look at the page: where a video lies on the map, in pixels of the window
window.featxReport = {
  place(key) {
    const box = canvas.getBoundingClientRect(), [x, y] = map.place(keys.indexOf(key));
    return { x: box.left + x, y: box.top + y };
  },
};
requestAnimationFrame(() => requestAnimationFrame(() => {
  document.documentElement.dataset.ready = "yes";
  performance.mark("featx-drawn");
}));
