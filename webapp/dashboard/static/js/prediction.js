// Draws a prediction over its image: masks, outlines, boxes, turned boxes, points.

const LARGEST = 1200; // pixels of the canvas's longer side
const SMALLEST = 320;

export async function drawPrediction(canvas, picture, told) {
  const longer = Math.max(told.width, told.height);
  const scale = Math.min(Math.max(1, SMALLEST / longer), LARGEST / longer);
  const width = (canvas.width = Math.round(told.width * scale));
  const height = (canvas.height = Math.round(told.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = scale <= 1;
  if (picture) pen.drawImage(picture, 0, 0, width, height);
  if (told.mask) await drawMask(pen, told.mask, width, height);
  // The surest last, so that it lies on top.
  for (const one of [...(told.objects ?? [])].reverse()) drawObject(pen, one, width, height);
}

async function drawMask(pen, url, width, height) {
  const image = new Image();
  image.src = url;
  await image.decode();
  pen.save();
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = 0.5;
  pen.drawImage(image, 0, 0, width, height);
  pen.restore();
}

function drawObject(pen, one, width, height) {
  const line = Math.max(2, Math.max(width, height) / 320);
  const path = (places) => {
    pen.beginPath();
    for (let i = 0; i < places.length; i += 2) pen.lineTo(places[i] * width, places[i + 1] * height);
    pen.closePath();
  };
  pen.save();
  pen.lineWidth = line;
  pen.strokeStyle = pen.fillStyle = one.colour;
  if (one.polygon) {
    path(one.polygon);
    pen.globalAlpha = 0.35;
    pen.fill();
    pen.globalAlpha = 1;
    pen.stroke();
  }
  const [left, top, right, bottom] = one.box;
  path(one.corners ?? [left, top, right, top, right, bottom, left, bottom]);
  if (!one.polygon) pen.stroke();
  for (const [x, y, confidence] of one.keypoints ?? []) {
    if (confidence < 0.3) continue;
    pen.beginPath();
    pen.arc(x * width, y * height, 2 * line, 0, 2 * Math.PI);
    pen.fill();
  }
  label(pen, `${one.class} ${one.score.toFixed(2)}`, left * width, top * height, width);
  pen.restore();
}

function label(pen, text, x, y, width) {
  const size = Math.max(11, Math.round(width / 60));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + 8;
  const left = Math.max(0, Math.min(x, width - wide));
  const top = Math.max(0, y - size - 6);
  pen.fillRect(left, top, wide, size + 6);
  pen.fillStyle = light(pen.strokeStyle) ? "#111" : "#fff";
  pen.fillText(text, left + 4, top + size + 1);
}

function light(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}
