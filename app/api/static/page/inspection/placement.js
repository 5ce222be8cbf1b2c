// Where a model's input lies on the original image: undoes how the image was brought there. As in placement.py.

/**
 * The rectangle that the model saw, in pixels of the original: [x, y, width, height]. With `crop` it is a part of the
 * image, with `pad` it reaches beyond.
 */
export function seenByModel({ width, height }, { fit, width: inputWidth, height: inputHeight }) {
  if (fit === "stretch" || width * inputHeight === height * inputWidth) return [0, 0, width, height];
  if (fit === "pad") {
    const scale = Math.min(inputWidth / width, inputHeight / height);
    const [x, across] = padded(width, inputWidth, scale);
    const [y, down] = padded(height, inputHeight, scale);
    return [x, y, across, down];
  }
  const [across, down] = [Math.min(width, (height * inputWidth) / inputHeight), Math.min(height, (width * inputHeight) / inputWidth)];
  return [Math.floor((width - across) / 2), Math.floor((height - down) / 2), across, down];
}

/** Where the input begins, and how long it is, in pixels of an image that takes a whole number of its pixels. */
function padded(image, input, scale) {
  const within = Math.min(Math.max(Math.round(image * scale), 1), input);
  const begin = Math.floor((input - within) / 2);
  return [(-begin * image) / within, (input * image) / within];
}
