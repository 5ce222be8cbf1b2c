// Asks the service, and turns what goes wrong into sentences.

/** A problem document (RFC 9457), or no answer at all. */
export class Problem extends Error {
  constructor({ status = 0, detail, errors = null, retryAfter = null }) {
    super(detail);
    Object.assign(this, { status, errors, retryAfter });
  }
}

/** The JSON of an answer. Throws a Problem. */
export async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { headers: { Accept: "application/json" }, ...options });
  } catch {
    throw new Problem({ detail: "The service does not answer. Is it running, and are you connected to it?" });
  }
  if (response.ok) return response.json();
  const document = await response.json().catch(() => ({}));
  throw new Problem({
    status: response.status,
    detail: document.detail ?? `The service answered ${response.status} ${response.statusText}.`,
    errors: document.errors,
    retryAfter: Number(response.headers.get("Retry-After")) || null,
  });
}
