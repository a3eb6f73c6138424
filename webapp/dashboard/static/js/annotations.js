// An image with what its annotation says over it, as one SVG: masks, boxes, outlines, keypoints.
// One drawing, so that all of it keeps its place at every size.

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 1000; // units of the drawing, whatever the image has
const GOLDEN_ANGLE = 137.508; // as adapters/data/preview.py colours masks

export const classColour = (id) => `hsl(${(id * GOLDEN_ANGLE) % 360} 100% 50%)`;

export const LAYERS = [
  { name: "boxes", title: "Boxes", isIn: (item) => item.objects.some((thing) => !thing.corners.length) },
  { name: "corners", title: "Turned boxes", isIn: (item) => item.objects.some((thing) => thing.corners.length) },
  { name: "polygons", title: "Outlines", isIn: (item) => item.objects.some((thing) => thing.polygons.length) },
  { name: "keypoints", title: "Keypoints", isIn: (item) => item.objects.some((thing) => thing.keypoints.length) },
  { name: "mask", title: "Masks", isIn: (item) => Boolean(item.mask) },
];

function shape(tag, layer, attributes) {
  const made = document.createElementNS(SVG, tag);
  made.setAttribute("class", `layer-${layer}`);
  made.setAttribute("vector-effect", "non-scaling-stroke");
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Returns the drawing of an image that can be read.
export function draw(item, { skeleton }) {
  const scale = LONGEST / Math.max(item.width, item.height);
  const size = { width: item.width * scale, height: item.height * scale };
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "preview-drawing");
  svg.append(picture("jpeg", item.thumbnail, "image", size));
  if (item.mask) svg.append(picture("png", item.mask, "mask", size));
  for (const thing of item.objects) svg.append(...shapes(thing, size, skeleton));
  return svg;
}

function picture(kind, content, layer, size) {
  return shape("image", layer, { ...size, href: `data:image/${kind};base64,${content}`, preserveAspectRatio: "none" });
}

function shapes(thing, size, skeleton) {
  const colour = classColour(thing.class_id);
  const made = [];
  for (const polygon of thing.polygons) {
    made.push(shape("polygon", "polygons", { points: points(polygon, size), fill: colour, "fill-opacity": 0.3, stroke: colour }));
  }
  if (thing.corners.length) {
    made.push(shape("polygon", "corners", { points: points(thing.corners, size), fill: "none", stroke: colour }));
  } else {
    const [left, top, right, bottom] = thing.box;
    made.push(
      shape("rect", "boxes", {
        x: left * size.width,
        y: top * size.height,
        width: Math.max(0, right - left) * size.width,
        height: Math.max(0, bottom - top) * size.height,
        fill: "none",
        stroke: colour,
        ...(thing.crowd ? { "stroke-dasharray": "4 3" } : {}),
      }),
    );
  }
  made.push(...bones(thing, size, skeleton), ...dots(thing, size, colour));
  return made;
}

function bones(thing, size, skeleton) {
  const seen = (index) => thing.keypoints[index]?.[2] > 0;
  return skeleton.filter(([from, to]) => seen(from) && seen(to)).map(([from, to]) => {
    const [a, b] = [thing.keypoints[from], thing.keypoints[to]];
    return shape("line", "keypoints", {
      x1: a[0] * size.width, y1: a[1] * size.height, x2: b[0] * size.width, y2: b[1] * size.height,
      stroke: classColour(thing.class_id),
    });
  });
}

// A point that is hidden in the image is drawn hollow, one that is not labelled not at all.
function dots(thing, size, colour) {
  return thing.keypoints.filter(([, , visible]) => visible > 0).map(([x, y, visible]) =>
    shape("circle", "keypoints", {
      cx: x * size.width, cy: y * size.height, r: 13, stroke: colour,
      fill: visible > 1 ? "#fff" : "none",
    }),
  );
}

function points(flat, size) {
  const pairs = [];
  for (let i = 0; i + 1 < flat.length; i += 2) pairs.push(`${flat[i] * size.width},${flat[i + 1] * size.height}`);
  return pairs.join(" ");
}
