// Texts and elements. Whatever comes from the data becomes text, never markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

// Controls, line separators and marks that turn the direction of what follows are shown as what they are
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/g;
const PAIRS = /[\ud800-\udbff][\udc00-\udfff]/g;
function shown(text) {
  const escape = (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  let out = "", end = 0;
  for (const match of text.matchAll(PAIRS)) {
    out += text.slice(end, match.index).replace(UNPRINTABLE, escape) + match[0];
    end = match.index + match[0].length;
  }
  return out + text.slice(end).replace(UNPRINTABLE, escape);
}

// The last part of a key; its title is the whole
const name = (key) => element("span", { class: "name", title: shown(key) }, shown(baseName(key)));

// The same in one line. Names of one class begin alike: where room is short the beginning loses its end, not the name its own
function nameInLine(key) {
  const characters = [...shown(baseName(key))], end = characters.splice(-TAIL).join("");
  return element("span", { class: "name line", title: shown(key) }, element("span", {}, characters.join("")), element("span", {}, end));
}
const TAIL = 8; // characters
const baseName = (key) => key.slice(key.lastIndexOf("/") + 1);
const className = (number) => (data.classes[number] === "" ? "no folder" : shown(data.classes[number]));
const count = (value) => value.toLocaleString("en");
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

const size = (bytes) => (bytes < 1e6 ? `${count(Math.ceil(bytes / 1e3))} kB` : `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`);

function duration(seconds) {
  if (seconds < 120) return `${seconds.toLocaleString("en", { maximumFractionDigits: 1 })} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toLocaleString("en", { maximumFractionDigits: 1 })} h`;
}

// What is known of a video, in a line
function facts(video) {
  const { num_clips, num_frames, duration_seconds, label } = data.videos;
  const known = [className(data.class_of[video])];
  if (label.length && label[video] && data.grouped_by !== "label") known.push(`label ${shown(label[video])}`);
  if (num_clips[video]) known.push(plural(num_clips[video], "clip"));
  if (duration_seconds[video] !== null) known.push(duration(duration_seconds[video]));
  else if (num_frames[video]) known.push(plural(num_frames[video], "frame"));
  return known.join(" · ");
}

const cosineText = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
