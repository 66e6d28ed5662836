// What is told of single videos: the card at the pointer, the two that are compared, neighbours.

const CARD_NEIGHBOURS = 5;
const GAP = 14; // pixels between a point and its card

function fillCard(card, layer, video) {
  const items = neighboursOf(layer, video).slice(0, CARD_NEIGHBOURS).map((neighbour) =>
    element("li", {}, picture(neighbour.video, { small: true, now: true }), nameInLine(keys[neighbour.video]),
      element("span", { class: "cosine" }, cosineText(neighbour.cosine))));
  const words = element("div", {}, element("p", { class: "name" }, shown(keys[video])), element("p", { class: "muted" }, facts(video)));
  card.replaceChildren(element("div", { class: "head" }, picture(video, { now: true }), words));
  if (items.length) card.append(element("h3", {}, "Nearest neighbours"), element("ol", {}, ...items));
  card.dataset.video = video;
}

// Put the card beside a point, where it covers the point in no case and leaves the map as little as can be
function placeCard(card, [x, y], [width, height]) {
  card.hidden = false;
  const own = card.getBoundingClientRect();
  let left = x + GAP, top = y - own.height / 3;
  if (left + own.width > width - 6) left = x - GAP - own.width;
  if (left < 6) { // too narrow for beside: above or below
    left = Math.max(6, Math.min(width - own.width - 6, x - own.width / 2));
    top = y > height / 2 ? y - GAP - own.height : y + GAP;
  }
  card.style.left = `${left}px`;
  card.style.top = `${Math.max(6, Math.min(height - own.height - 6, top))}px`;
}

function fillPair(place, layer, chosen, onClear) {
  const slots = [0, 1].map((i) => {
    const slot = element("div", { class: i < chosen.length ? "slot" : "slot empty" });
    if (i < chosen.length) slot.append(element("span", { class: "letter" }, "AB"[i]), picture(chosen[i], { now: true }), name(keys[chosen[i]]),
      element("p", { class: "muted" }, facts(chosen[i])));
    else slot.append(element("span", { class: "picture" }, element("span", { class: "why" }, i ? "choose a second video" : "choose a video: on the map, or in the list below")));
    return slot;
  });
  const result = element("div", { class: "result" }), how = element("p", { class: "how" });
  if (chosen.length === 2) {
    const { cosine, exact } = similarity(layer, ...chosen), value = cosineText(cosine, exact ? 4 : 3);
    result.append(element("strong", { id: "cosine" }, exact ? value : `≈ ${value}`), element("span", {}, "cosine"));
    if (!exact) how.append(`From ${layer.vector_dims} of ${count(layer.dims)} dimensions; of pairs tried none was off by more than ${layer.pair_error.toFixed(3)}.`);
  } else result.append(element("span", {}, "The last two that you choose are compared."));
  if (chosen.length) {
    const clear = element("button", { type: "button", class: "link" }, "clear");
    clear.addEventListener("click", onClear);
    result.append(clear);
  }
  if (how.textContent) result.append(how);
  place.replaceChildren(...slots, result);
}

function fillNeighbours(layer, video, { onChoose, onPoint }) {
  const list = byId("neighbours"), of = byId("neighbours-of");
  const found = video < 0 ? [] : neighboursOf(layer, video);
  for (const part of [list, of, byId("neighbours-heading")]) part.hidden = !found.length;
  if (!found.length) return list.replaceChildren();
  of.textContent = `of ${shown(baseName(keys[video]))}`;
  list.replaceChildren(...found.map((neighbour) => {
    const words = element("span", {}, nameInLine(keys[neighbour.video]), element("small", {}, className(data.class_of[neighbour.video])));
    const button = element("button", { type: "button", class: "neighbour", "data-video": neighbour.video }, picture(neighbour.video, { small: true }), words,
      element("span", { class: "cosine" }, cosineText(neighbour.cosine)));
    button.addEventListener("click", () => onChoose(neighbour.video));
    for (const event of ["focus", "pointerenter"]) button.addEventListener(event, () => onPoint(neighbour.video));
    for (const event of ["blur", "pointerleave"]) button.addEventListener(event, () => onPoint(-1));
    return element("li", {}, button);
  }));
  list.scrollTop = 0;
}

// In a group of buttons the arrows go from one to the next
function arrowsWithin(group, selector) {
  group.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const buttons = [...group.querySelectorAll(selector)], at = buttons.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    buttons[Math.max(0, Math.min(buttons.length - 1, at + step))].focus();
  });
}
