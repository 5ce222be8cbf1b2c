// HTTP requests to the service, with the API key if there is one; errors become readable messages.

import { askForKey, storedKey } from "./api_key.js";

const UNAUTHORIZED = 401;
const NO_KEY = "This service requires an API key."; // the service's own words are for programs

/** A problem document (RFC 9457); status 0 if there was no response. */
export class Problem extends Error {
  constructor({ status = 0, detail, errors = null, retryAfter = null }) {
    super(detail);
    Object.assign(this, { status, errors, retryAfter });
  }
}

/** The JSON body of the response. Throws a Problem. */
export async function request(url, options = {}) {
  return (await checked(url, options)).json();
}

/** A file of the service. Throws a Problem. */
export async function requestBlob(url, accept = "*/*") {
  return (await checked(url, { headers: { Accept: accept } })).blob();
}

/** The state of the service, whatever it is. */
export async function requestHealth() {
  return (await send("health", {})).json();
}

async function checked(url, options) {
  const response = await sendWithKey(url, options);
  if (response.ok) return response;
  const document = await response.json().catch(() => ({}));
  throw new Problem({
    status: response.status,
    detail: (response.status === UNAUTHORIZED ? NO_KEY : document.detail) ?? `The service returned ${response.status} ${response.statusText}.`,
    errors: document.errors,
    retryAfter: Number(response.headers.get("Retry-After")) || null,
  });
}

/** Asks for the API key as often as the service refuses it; without a key the last response is returned. */
async function sendWithKey(url, options) {
  for (;;) {
    const key = storedKey();
    const response = await send(url, options, key);
    if (response.status !== UNAUTHORIZED) return response;
    if (key === storedKey() && !(await askForKey(key !== null))) return response;
  }
}

async function send(url, options, key = null) {
  const headers = { Accept: "application/json", ...(key === null ? {} : { "X-API-Key": asBytes(key) }) };
  try {
    return await fetch(url, { ...options, headers: { ...headers, ...options.headers } });
  } catch {
    throw new Problem({ detail: "No response from the service. Check that it is running and reachable." });
  }
}

/** The service compares keys as UTF-8; fetch sends each character of a header as one byte. */
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
