// Stills from a camera: by button, by the space bar, or every few seconds.

import { byId, element } from "../dom.js";

const IDEAL = { width: { ideal: 1920 }, height: { ideal: 1080 } };
const QUALITY = 0.95; // of JPEG files

const REASONS = {
  NotAllowedError: "The browser does not allow this page to use the camera. Allow it in the settings beside the address.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

export class Camera {
  #stream = null;
  #timer = 0;

  /** `onStill` gets each picture as a file; `onProblem` gets a sentence. */
  constructor({ onStill, onProblem }) {
    Object.assign(this, { onStill, onProblem });
    this.video = byId("video");
    byId("camera-open").addEventListener("click", () => this.open());
    byId("camera-close").addEventListener("click", () => this.close());
    byId("camera-still").addEventListener("click", () => this.still());
    byId("camera-device").addEventListener("change", () => this.open(byId("camera-device").value));
    byId("camera-interval").addEventListener("change", () => this.#repeat());
  }

  get isOpen() {
    return this.#stream !== null;
  }

  async open(deviceId = null) {
    if (!navigator.mediaDevices) {
      this.onProblem("Browsers allow a camera only on pages with HTTPS, or on this computer's own address (localhost).");
      return;
    }
    this.#stop();
    try {
      const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { ...IDEAL, ...which } });
    } catch (error) {
      this.close();
      this.onProblem(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
      return;
    }
    this.#stream.getVideoTracks()[0].addEventListener("ended", () => this.close()); // unplugged
    this.video.srcObject = this.#stream;
    this.#show(true);
    await this.#listDevices();
    this.#repeat();
    byId("camera-still").focus();
  }

  close() {
    this.#stop();
    this.#show(false);
  }

  async still() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!this.isOpen || width === 0) return;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    this.onStill(new File([blob], `camera ${timestamp()}.jpg`, { type: "image/jpeg" }));
  }

  #stop() {
    clearInterval(this.#timer);
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.video.srcObject = null;
  }

  #show(isOpen) {
    byId("camera").hidden = !isOpen;
    byId("drop-zone").hidden = isOpen;
    document.body.classList.toggle("camera", isOpen);
  }

  /** The names of devices are known only after the camera was allowed. */
  async #listDevices() {
    const used = this.#stream.getVideoTracks()[0].getSettings().deviceId;
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    byId("camera-device").replaceChildren(
      ...cameras.map(({ deviceId, label }, index) =>
        element("option", { value: deviceId, selected: deviceId === used }, label || `Camera ${index + 1}`),
      ),
    );
  }

  #repeat() {
    clearInterval(this.#timer);
    const seconds = Number(byId("camera-interval").value);
    if (seconds > 0 && this.isOpen) this.#timer = setInterval(() => this.still(), 1000 * seconds);
  }
}

/** The local time to a tenth of a second, as a part of a file name. */
function timestamp() {
  const now = new Date();
  const local = new Date(now - now.getTimezoneOffset() * 60_000).toISOString();
  return local.slice(0, 21).replace("T", " ").replaceAll(":", ".");
}
