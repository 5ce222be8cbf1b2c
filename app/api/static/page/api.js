// HTTP requests to the service; errors become readable messages.

/** A problem document (RFC 9457); status 0 if there was no response. */
export class Problem extends Error {
  constructor({ status = 0, detail, errors = null, retryAfter = null }) {
    super(detail);
    Object.assign(this, { status, errors, retryAfter });
  }
}

/** The JSON body of the response. Throws a Problem. */
export async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { headers: { Accept: "application/json" }, ...options });
  } catch {
    throw new Problem({ detail: "No response from the service. Check that it is running and reachable." });
  }
  if (response.ok) return response.json();
  const document = await response.json().catch(() => ({}));
  throw new Problem({
    status: response.status,
    detail: document.detail ?? `The service returned ${response.status} ${response.statusText}.`,
    errors: document.errors,
    retryAfter: Number(response.headers.get("Retry-After")) || null,
  });
}
