// Pictures for people with nothing at hand.

export const SAMPLES = [
  { file: "static/samples/five.png", name: "a five" },
  { file: "static/samples/another-five.png", name: "another five" },
  { file: "static/samples/three.png", name: "a three" },
  { file: "static/samples/seven.png", name: "a seven" },
  { file: "static/samples/lying-five.png", name: "a five lying down" },
  { file: "static/samples/noise.png", name: "noise" },
];
