// Where a model's map lies on the original image: undoes how the image was brought to the model's input.

/**
 * The rectangle that the model saw, in pixels of the original: [x, y, width, height]. With `crop` it is a part of the
 * image, with `pad` it reaches beyond.
 */
export function seenByModel({ width, height }, { fit, width: inputWidth, height: inputHeight }) {
  if (fit === "stretch") return [0, 0, width, height];
  const scales = [inputWidth / width, inputHeight / height];
  const scale = fit === "crop" ? Math.max(...scales) : Math.min(...scales);
  const [seenWidth, seenHeight] = [inputWidth / scale, inputHeight / scale];
  return [(width - seenWidth) / 2, (height - seenHeight) / 2, seenWidth, seenHeight];
}
