// The scatter: drawn on a canvas, moved and zoomed; tells what is at the pointer and what lies in a direction.

// Okabe and Ito's colours without yellow, made to be told apart with any kind of colour vision; lighter ones for dark pages.
const COLOURS = {
  light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#111111"],
  dark: ["#4a9fe0", "#f0803c", "#1fc095", "#e08fc0", "#f4b93e", "#9bdcff", "#f2f2f2"],
};
// Sevens and sixteens have no common divisor: neighbouring classes differ in colour and in shape, and 112 in one of them
const SHAPES = ["circle", "square", "triangle", "diamond", "wedge", "plus", "cross", "star"];

function tracePath(draw, shape, r) {
  const polygon = (points) => points.forEach(([x, y], i) => (i ? draw.lineTo(x * r, y * r) : draw.moveTo(x * r, y * r)));
  const turned = (n, radius, start) => Array.from({ length: n }, (_, i) => {
    const a = start + (2 * Math.PI * i) / n, own = typeof radius === "number" ? radius : radius[i % radius.length];
    return [own * Math.cos(a), own * Math.sin(a)];
  });
  const bars = [[-0.34, -1], [0.34, -1], [0.34, -0.34], [1, -0.34], [1, 0.34], [0.34, 0.34], [0.34, 1], [-0.34, 1], [-0.34, 0.34], [-1, 0.34], [-1, -0.34], [-0.34, -0.34]];
  draw.beginPath();
  if (shape === "circle") draw.arc(0, 0, 0.95 * r, 0, 2 * Math.PI);
  else if (shape === "square") polygon([[-0.82, -0.82], [0.82, -0.82], [0.82, 0.82], [-0.82, 0.82]]);
  else if (shape === "triangle") polygon(turned(3, 1.15, -Math.PI / 2));
  else if (shape === "wedge") polygon(turned(3, 1.15, Math.PI / 2));
  else if (shape === "diamond") polygon(turned(4, 1.15, 0));
  else if (shape === "plus") polygon(bars.map(([x, y]) => [1.05 * x, 1.05 * y]));
  else if (shape === "cross") polygon(bars.map(([x, y]) => [0.74 * (x - y), 0.74 * (x + y)]));
  else polygon(turned(10, [1.25, 0.52], -Math.PI / 2));
  draw.closePath();
}

const theme = () => document.documentElement.dataset.theme;
const cssColour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable);

// Draw the mark of a class around the origin
function drawMark(draw, number, r) {
  const colour = COLOURS[theme()][number % 7], shape = number % 16;
  tracePath(draw, SHAPES[shape % 8], shape < 8 ? r : 0.88 * r);
  draw.lineJoin = "round";
  if (shape < 8) {
    draw.fillStyle = colour;
    draw.fill();
    draw.lineWidth = 0.7;
    draw.strokeStyle = cssColour("--surface");
  } else {
    draw.lineWidth = Math.max(1.3, 0.32 * r);
    draw.strokeStyle = colour;
  }
  draw.stroke();
}

const MARGIN = 30; // pixels around the points when all are shown
const REACH = 16; // pixels from the pointer

function createMap(canvas, isVisible) {
  const draw = canvas.getContext("2d");
  const below = element("canvas"), under = below.getContext("2d"); // the points alone: the pointer changes only what is above
  let stale = true;
  let points = new Float32Array(0), width = 0, height = 0, dots = 1, waiting = false;
  let sprites = new Map();
  const view = { x: 0, y: 0, scale: 1, least: 1 };
  let marks = { at: -1, chosen: [], neighbours: [] };

  const place = (video) => [
    (points[2 * video] - view.x) * view.scale + width / 2,
    (view.y - points[2 * video + 1]) * view.scale + height / 2,
  ];
  // in whole quarters, so that a zoom does not draw every mark anew
  const radius = () => Math.round(4 * Math.max(3, Math.min(6, 5.6 - Math.log10(Math.max(1, numVideos / 40)))) * Math.min(1.7, (view.scale / view.least) ** 0.22)) / 4;

  function sprite(number, r) {
    if (!sprites.has(number)) {
      const side = Math.ceil(2 * (1.3 * r + 2) * dots), made = element("canvas", { width: side, height: side });
      const pen = made.getContext("2d");
      pen.setTransform(dots, 0, 0, dots, side / 2, side / 2);
      drawMark(pen, number, r);
      sprites.set(number, made);
    }
    return sprites.get(number);
  }

  function paint() {
    waiting = false;
    if (!canvas.width || !canvas.height) return; // it is not laid out
    const r = radius();
    if (stale || sprites.theme !== theme()) paintPoints(r);
    draw.setTransform(1, 0, 0, 1, 0, 0);
    draw.clearRect(0, 0, canvas.width, canvas.height);
    draw.drawImage(below, 0, 0);
    draw.setTransform(dots, 0, 0, dots, 0, 0);
    paintMarks(r);
  }

  function paintPoints(r) {
    stale = false;
    if (sprites.r !== r || sprites.theme !== theme()) sprites = Object.assign(new Map(), { r, theme: theme() });
    under.clearRect(0, 0, below.width, below.height);
    under.globalAlpha = numVideos > 2000 ? 0.8 : 0.92;
    for (let video = 0; video < numVideos; video++) {
      if (!isVisible(video)) continue;
      const [x, y] = place(video);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      const mark = sprite(data.class_of[video], r);
      under.drawImage(mark, Math.round(x * dots - mark.width / 2), Math.round(y * dots - mark.height / 2));
    }
  }

  function paintMarks(r) {
    const ink = cssColour("--ink"), accent = cssColour("--accent");
    if (marks.at >= 0) {
      const [x, y] = place(marks.at);
      draw.strokeStyle = ink;
      draw.lineWidth = 1;
      draw.globalAlpha = 0.45;
      for (const other of marks.neighbours) {
        draw.beginPath();
        draw.moveTo(x, y);
        draw.lineTo(...place(other));
        draw.stroke();
      }
      draw.globalAlpha = 1;
      ring(x, y, r + 4, ink, 1.8);
    }
    marks.chosen.forEach((video, i) => {
      const [x, y] = place(video), letter = "AB"[i];
      ring(x, y, r + 5, accent, 2.4);
      draw.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
      draw.lineWidth = 4;
      draw.strokeStyle = cssColour("--surface");
      draw.fillStyle = accent;
      draw.strokeText(letter, x + r + 8, y - r - 3);
      draw.fillText(letter, x + r + 8, y - r - 3);
    });
  }

  function ring(x, y, r, colour, lineWidth) {
    draw.beginPath();
    draw.arc(x, y, r, 0, 2 * Math.PI);
    draw.strokeStyle = colour;
    draw.lineWidth = lineWidth;
    draw.stroke();
  }

  // In the next frame; `points` says that more than the marks has changed
  function repaint(points = true) {
    stale ||= points;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(paint);
  }

  function showAll() {
    let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let video = 0; video < numVideos; video++) {
      left = Math.min(left, points[2 * video]);
      right = Math.max(right, points[2 * video]);
      bottom = Math.min(bottom, points[2 * video + 1]);
      top = Math.max(top, points[2 * video + 1]);
    }
    if (!numVideos) [left, right, bottom, top] = [0, 0, 0, 0];
    const room = (side, span) => (span > 0 ? Math.max(1, side - 2 * MARGIN) / span : Infinity);
    const scale = Math.min(room(width, right - left), room(height, top - bottom));
    view.least = Number.isFinite(scale) ? scale : 1;
    Object.assign(view, { x: (left + right) / 2, y: (bottom + top) / 2, scale: view.least });
    repaint();
  }

  function resize() {
    const before = [width, height];
    ({ width, height } = canvas.getBoundingClientRect());
    dots = window.devicePixelRatio || 1;
    canvas.width = below.width = Math.round(width * dots);
    canvas.height = below.height = Math.round(height * dots);
    stale = true;
    sprites = new Map();
    const wasWhole = view.scale === view.least;
    if (wasWhole || !before[0]) showAll();
    paint();
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const scale = Math.max(0.5 * view.least, Math.min(400 * view.least, view.scale * factor));
    view.x += (x - width / 2) * (1 / view.scale - 1 / scale);
    view.y -= (y - height / 2) * (1 / view.scale - 1 / scale);
    view.scale = scale;
    repaint();
  }

  function move(dx, dy) {
    view.x -= dx / view.scale;
    view.y += dy / view.scale;
    repaint();
  }

  // The visible video that is nearest to a place, in pixels; -1 where none is in reach
  function videoAt(x, y, reach = REACH) {
    let best = -1, least = reach * reach;
    for (let video = 0; video < numVideos; video++) {
      if (!isVisible(video)) continue;
      const [px, py] = place(video), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance <= least) [best, least] = [video, distance];
    }
    return best;
  }

  // The next visible video from one to the "left", "right", "up" or "down"; -1 where there is none
  function videoTowards(from, ux, uy) {
    const [x, y] = place(from);
    let best = -1, least = Infinity;
    for (let video = 0; video < numVideos; video++) {
      if (video === from || !isVisible(video)) continue;
      const [px, py] = place(video), along = (px - x) * ux + (py - y) * uy, aside = Math.abs((px - x) * uy - (py - y) * ux);
      if (along <= 0 || aside > 1.3 * along) continue;
      if (along + 2 * aside < least) [best, least] = [video, along + 2 * aside];
    }
    return best;
  }

  // Move so that a video lies within the map
  function reveal(video) {
    const [x, y] = place(video), edge = 12;
    move(Math.max(edge - x, 0) + Math.min(width - edge - x, 0), Math.max(edge - y, 0) + Math.min(height - edge - y, 0));
  }

  return {
    place, videoAt, videoTowards, reveal, zoom, move, showAll, repaint, resize,
    setPoints(next) { points = next; showAll(); },
    setMarks(next) { marks = next; repaint(false); },
    get size() { return [width, height]; },
  };
}
