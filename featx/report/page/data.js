// What the page holds, taken apart when it is first needed: arrays of numbers, thumbnails.

const data = JSON.parse(document.getElementById("data").textContent);
const keys = data.videos.key;
const numVideos = keys.length;

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

// IEEE half precision, which not every browser has as an array of its own
function halves(bytes) {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    table[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
  return Float32Array.from(new Uint16Array(bytes.buffer), (bits) => table[bits]);
}

const layers = new Map();

// A layer with its arrays; text is let go of once it is read
function layerOf(name) {
  if (!layers.has(name)) {
    const held = data.layers[name];
    const floats = (text) => new Float32Array(bytesOf(text).buffer);
    layers.set(name, {
      ...held,
      name,
      points: floats(held.points),
      neighbours: new Uint32Array(bytesOf(held.neighbours).buffer),
      cosines: floats(held.cosines),
      vectors: null,
      offsets: floats(held.offsets),
    });
  }
  return layers.get(name);
}

function vectorsOf(layer) {
  if (layer.vectors === null) {
    const held = data.layers[layer.name];
    const bytes = bytesOf(held.vectors);
    layer.vectors = held.dtype === "float16" ? halves(bytes) : new Float32Array(bytes.buffer);
  }
  return layer.vectors;
}

// [{video, cosine}], the nearest first
function neighboursOf(layer, video) {
  const count = layer.num_neighbours;
  return Array.from({ length: count }, (_, n) => ({
    video: layer.neighbours[video * count + n],
    cosine: layer.cosines[video * count + n],
  }));
}

// The cosine of two videos, and whether it is exact: neighbours are, others where the reduced vectors lose nothing
function similarity(layer, first, second) {
  for (const [one, other] of [[first, second], [second, first]]) {
    const found = neighboursOf(layer, one).find((neighbour) => neighbour.video === other);
    if (found) return { cosine: found.cosine, exact: true };
  }
  const vectors = vectorsOf(layer), dims = layer.vector_dims;
  let sum = layer.offsets[first] + layer.offsets[second];
  for (let d = 0; d < dims; d++) sum += vectors[first * dims + d] * vectors[second * dims + d];
  if (!layer.exact) // it is no neighbour, so it is not nearer than the last one
    for (const video of [first, second]) sum = Math.min(sum, layer.cosines[(video + 1) * layer.num_neighbours - 1]);
  return { cosine: Math.max(-1, Math.min(1, sum)), exact: layer.exact };
}

// Thumbnails lie in blocks of base64, many in one; a block is read when one of its pictures is wanted.

const pictureBlocks = [];
const pictureUrls = new Map();
const pictureReasons = new Map(data.picture_reasons);
const picturePlaces = new Map();
data.pictures.forEach(([video, size], n) => {
  const block = Math.floor(n / data.chunk_videos);
  const start = n % data.chunk_videos ? pictureBlocks[block].size : 0;
  if (!start) pictureBlocks[block] = { size: 0, bytes: null };
  picturePlaces.set(video, { block, start, size });
  pictureBlocks[block].size = start + size;
});

const hasPicture = (video) => picturePlaces.has(video);

function pictureUrl(video) {
  if (!pictureUrls.has(video)) {
    const { block, start, size } = picturePlaces.get(video);
    const held = pictureBlocks[block];
    if (held.bytes === null) held.bytes = bytesOf(document.getElementById(`pictures-${block}`).textContent);
    pictureUrls.set(video, URL.createObjectURL(new Blob([held.bytes.subarray(start, start + size)])));
  }
  return pictureUrls.get(video);
}

// A picture of a video, or the reason why there is none; it is decoded when it comes into view
const pictureWatch = new IntersectionObserver((entries) => {
  for (const entry of entries)
    if (entry.isIntersecting) {
      pictureWatch.unobserve(entry.target);
      entry.target.src = pictureUrl(Number(entry.target.dataset.video));
    }
}, { rootMargin: "200px" });

function picture(video, { small = false, now = false } = {}) {
  const frame = element("span", { class: small ? "picture small" : "picture" });
  if (hasPicture(video)) {
    const image = element("img", { alt: "", decoding: "async", "data-video": video });
    frame.append(image);
    if (now) image.src = pictureUrl(video);
    else pictureWatch.observe(image);
  } else {
    const reason = data.with_pictures ? pictureReasons.get(video) || "unknown reason" : "made without thumbnails";
    frame.append(element("span", { class: "why" }, `no picture: ${shown(reason)}`));
  }
  return frame;
}
