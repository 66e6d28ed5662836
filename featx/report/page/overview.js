// What does not move: figures, notes, clips, failures, how it was made.

function fillTop() {
  byId("title").textContent = shown(data.title);
  const { made, file } = data;
  const dims = Object.entries(data.holds.dims).map(([layer, n]) => `${layer} (${count(n)})`).join(", ");
  byId("subtitle").textContent = shown([made.checkpoint, dims, `written ${file.written.slice(0, 10)}`].join(" · "));
  byId("footer").textContent = shown(`${file.path} · ${size(file.num_bytes)} · page by featx ${data.featx_version}`);
}

function fillTiles() {
  const { num_clips, num_frames, duration_seconds } = data.videos;
  const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
  const tiles = [["videos", count(numVideos)], ["classes", count(data.classes.length)], ["clips", count(sum(num_clips))],
    ["frames", count(sum(num_frames))]];
  if (duration_seconds.some((value) => value !== null)) tiles.push(["duration", duration(sum(duration_seconds))]);
  if (data.damaged.length) tiles.push(["kept damaged", count(data.damaged.length), "alert"]);
  tiles.push(["failures", count(data.failures.length), data.failures.length ? "alert" : ""]);
  byId("tiles").append(...tiles.map(([label, value, kind = ""]) =>
    element("div", { class: kind }, element("dt", {}, label), element("dd", {}, value))));
  byId("notes").append(...data.notes.map((note) => element("li", {}, shown(note))));
  byId("notes").hidden = !data.notes.length;
}

const MOST_BARS = 30, BAR = 58, LEAST_CHART = 260; // the widths, in pixels, of a bar and of the two ends of the axis side by side

// Bars of whole numbers: one a value where there are few, else equally wide ones; the last takes all that lie far out
function bars(values) {
  const sorted = Float64Array.from(values).sort();
  const least = sorted[0], most = sorted[sorted.length - 1], far = sorted[Math.ceil(0.99 * (sorted.length - 1))];
  const width = Math.max(1, Math.ceil((far - least + 1) / MOST_BARS));
  const found = [];
  for (let from = least; from <= far; from += width) found.push({ from, to: from + width - 1, videos: 0 });
  if (most > found[found.length - 1].to) {
    if (found.length < MOST_BARS) found.push({ from: found[found.length - 1].to + 1, to: most, videos: 0 });
    else found[found.length - 1].to = most;
  }
  for (const value of values) found[Math.min(found.length - 1, Math.floor((value - least) / width))].videos++;
  return found;
}

// The mean of the two in the middle where their number is even
function median(sorted) {
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function fillClips() {
  const clips = data.videos.num_clips, place = byId("clips");
  if (!clips.length) return place.append(element("p", { class: "facts" }, "There are no videos."));
  if (clips.every((n) => n === 0)) return place.append(element("p", { class: "facts" }, "Nothing is known of clips: the features were imported."));
  const found = bars(clips), tallest = Math.max(...found.map((bar) => bar.videos));
  const range = (bar) => (bar.from === bar.to ? count(bar.from) : `${count(bar.from)} to ${count(bar.to)}`);
  const sorted = [...clips].sort((a, b) => a - b), total = sorted.reduce((sum, n) => sum + n, 0);
  const summary = `least ${count(sorted[0])}, median ${count(median(sorted))}, mean ${(total / sorted.length).toFixed(1)}, most ${count(sorted[sorted.length - 1])}`;
  if (sorted[0] === sorted[sorted.length - 1])
    return place.append(element("p", { class: "facts" }, `${clips.length === 1 ? "The one video has" : "Each video has"} ${plural(sorted[0], "clip")}.`));
  const chart = element("div", { class: "histogram", role: "img", "aria-label": `Histogram of clips per video: ${summary}` });
  for (const bar of found) {
    const one = element("div", { title: `${range(bar)} clips: ${plural(bar.videos, "video")}` });
    one.style.height = `${bar.videos ? Math.max(1.5, (100 * bar.videos) / tallest) : 0}%`;
    chart.append(one);
  }
  const ends = [found[0], found[found.length - 1]].map((bar) => element("span", {}, range(bar)));
  const axis = element("div", { class: "axis" }, ...(found.length > 1 ? ends : [ends[0]]));
  for (const part of [chart, axis]) part.style.maxWidth = `${Math.max(LEAST_CHART, BAR * found.length)}px`;
  place.append(chart, axis,
    element("p", { class: "facts" }, `${summary}; the tallest bar is ${plural(tallest, "video")}`));
}

const ROWS_AT_ONCE = 200;

function table(headings, rows) {
  const body = element("tbody"), holder = element("div", { class: "table", tabindex: "0", role: "region", "aria-label": headings.join(" and ") });
  const more = element("button", { type: "button", class: "link" });
  let done = 0;
  const add = () => {
    for (const [first, second, below] of rows.slice(done, done + ROWS_AT_ONCE)) {
      const cell = element("td", {}, element("span", { class: "name" }, shown(first)));
      if (below) cell.append(element("small", { class: "name" }, shown(below)));
      body.append(element("tr", {}, cell, element("td", { class: "name" }, shown(second))));
    }
    done = Math.min(rows.length, done + ROWS_AT_ONCE);
    more.textContent = `show more (${count(rows.length - done)} left)`;
    more.hidden = done === rows.length;
  };
  more.addEventListener("click", add);
  add();
  holder.append(element("table", {}, element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))), body), more);
  return holder;
}

function fillFailures() {
  const { failures, damaged } = data, place = byId("failures");
  if (failures.length) place.append(table(["Video", "Reason"], failures.map((f) => [f.key, f.reason, f.path])));
  else place.append(element("p", { class: "facts" }, "None: every video gave features."));
  if (!damaged.length) return;
  place.append(element("h3", {}, `Kept as far as they decode (${count(damaged.length)})`),
    table(["Video", "Damage"], damaged.map((d) => [keys[d.video], d.damage, data.videos.path[d.video]])));
}

function fillMade() {
  const { made, holds, file } = data, left = new Set(Object.keys(made));
  const take = (...names) => names.forEach((one) => left.delete(one));
  const list = (values) => values.map((value) => (typeof value === "number" ? Number(value.toPrecision(7)) : value)).join(", ");
  const groups = [];
  const group = (title, ...rows) => groups.push([title, rows.filter(([, value]) => value !== "" && value !== null && value !== undefined)]);
  const known = made.pixels_version !== 0;
  take("format", "format_version", "layers");
  group("Network", ["checkpoint", made.checkpoint], ["backbone", made.backbone], ["variant", made.variant],
    ["arguments", made.arguments === "{}" ? "" : made.arguments, "code"], ["sha256", made.checkpoint_sha256, "code"]);
  take("checkpoint", "backbone", "variant", "arguments", "checkpoint_sha256");
  const kept = [holds.descriptors && "descriptors", holds.clip_features && "clip features"].filter(Boolean).join(" and ");
  group("Features", ["layers", Object.entries(holds.dims).map(([layer, n]) => `${layer}, ${count(n)} dimensions`).join("; ")], ["kept", kept],
    ["stored as", made.dtype], ["aggregate", made.aggregate], ["bins of time", made.bins || ""], ...Object.entries(holds.reduced_by_pca).map(([layer, on]) => ["PCA", `${layer}, fitted on ${on}`]),
    ["basis", made.basis_sha256, "code"]);
  take("save", "dtype", "basis_sha256", "aggregate", "bins", "clip_times", "crops", "flip");
  if (known) {
    const stride = made.stride > 0 ? plural(made.stride, "frame") : "starts listed";
    group("Clips", ["length", plural(made.length, "frame")], ["frame step", made.frame_step],
      ["stride", made.num_clips_even ? `${made.num_clips_even} clips, evenly spread` : stride],
      ["frame rate", made.fps ? `${made.fps} frames/s` : "as filmed"], ["short videos", made.short], ["tail", made.tail]);
    group("Preprocessing", ["resize", made.resize], ["interpolation", made.interpolation], ["crop", `${made.crop}, ${made.crop_offset}`],
      ["views of a clip", made.crops > 1 || made.flip ? `${plural(made.crops, "crop")}${made.flip ? ", each mirrored too" : ""}` : ""],
      ["channels", made.channel_order], ["scale", Number(made.scale.toPrecision(9))], ["mean", list(made.mean)], ["std", list(made.std)],
      ["mean cube", made.mean_cube_sha256, "code"], ["pixels version", made.pixels_version]);
  }
  for (const names of ["length frame_step stride num_clips_even fps short tail", "resize interpolation crop crop_offset channel_order scale mean std mean_cube_sha256 pixels_version"])
    take(...names.split(" "));
  const runs = [["engine", made.engine], ["precision", made.precision], ["batch size", made.batch_size || ""], ["featx", made.featx_version]];
  take("engine", "precision", "batch_size", "featx_version");
  // what this page has no word for yet
  group("Run", ...runs, ...[...left].map((field) => [field.replaceAll("_", " "), Array.isArray(made[field]) ? list(made[field]) : String(made[field])]));
  const span = file.videos_from === file.videos_to ? file.videos_from : `${file.videos_from} to ${file.videos_to}`;
  group("File", ["path", file.path], ["size", `${size(file.num_bytes)} in ${plural(file.num_files, "file")}`],
    ["written", file.written.replace("T", " ").replace("+00:00", " UTC")], ["videos dated", file.videos_from === null ? "" : span]);
  byId("made").append(...groups.filter(([, rows]) => rows.length).map(([title, rows]) =>
    element("div", {}, element("h3", {}, title), element("dl", {},
      ...rows.flatMap(([label, value, kind = ""]) => [element("dt", {}, label), element("dd", { class: kind }, shown(String(value)))])))));
}
